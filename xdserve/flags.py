"""The flags of settings: one for each field of `xdserve.settings.Settings`, with its description.

They are read as text, so that a flag, a variable and a file are checked in one place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_SETTINGS = "Settings"


def flag(text: str, metavar: str | None = None, panel: str | None = _SETTINGS) -> Any:  # noqa: ANN401 - typer's type
    """An option that takes a value."""
    return typer.Option(help=text, metavar=metavar, rich_help_panel=panel, show_default=False)


def switch(name: str, text: str) -> Any:  # noqa: ANN401 - typer's type
    """An option without a value."""
    return typer.Option(name, help=text, rich_help_panel=_SETTINGS, show_default=False)


Config = Annotated[Path | None, flag("File of settings (YAML), also XDSERVE_CONFIG", "FILE")]
Source = Annotated[
    str | None, flag("Directory of YAML and JSON files to read and to watch, or the word kubernetes", "DIR|kubernetes")
]
Kubeconfig = Annotated[
    str | None,
    flag("Kubeconfig of the cluster; without it that of the pod, else KUBECONFIG, else ~/.kube/config", "FILE"),
]
Namespaces = Annotated[
    list[str] | None, flag("Namespaces of the cluster to read; without any, all of them", "NAMESPACE")
]
Selector = Annotated[str | None, flag("Label selector of the InferenceServices and Inferences to serve", "SELECTOR")]
Provision = Annotated[
    str | None,
    flag("Which targets get pods of a gateway; the annotation xdserve.io/gateway says else", "opt-out|opt-in|off"),
]
GatewayImage = Annotated[str | None, flag("Image of the gateways' Envoy", "IMAGE")]
RouterImage = Annotated[str | None, flag("Image of the router beside them: xdserve's own", "IMAGE")]
GatewayPullSecrets = Annotated[
    list[str] | None,
    flag("Secrets to pull these images with; they have to be in the namespace of each gateway", "NAME"),
]
GatewayPods = Annotated[
    bool | None,
    switch("--gateway-pods", "Look at the gateways' pods to say why they do not start; takes the right to list pods"),
]
GatewayXdsAddress = Annotated[
    str | None,
    flag("Where gateways reach xDS; without it <release>.<namespace>.svc and the port of xds_address", "HOST:PORT"),
]
KserveConfigMap = Annotated[
    str | None, flag("KServe's ConfigMap, read for its templates of hosts; empty: not read", "NAMESPACE/NAME")
]
GatewayAddress = Annotated[
    str | None,
    flag("Where gateways listen; without it :: (IPv4 too) where the cluster has IPv6, else 0.0.0.0", "ADDRESS"),
]
GatewayCaFile = Annotated[
    str | None,
    flag("File in the gateways' image of the CAs that verify backends with TLS, where a policy names none", "FILE"),
]
GatewayReplicas = Annotated[
    str | None, flag("Pods of each gateway, where its ServiceGateway says no other number", "NUMBER")
]
Release = Annotated[
    str | None, flag("Name of this installation in the cluster: of its Lease, its Secret, on its gateways", "NAME")
]
AllowPlaintext = Annotated[
    bool | None,
    switch("--allow-plaintext", "Serve xDS as plain text on an address that others can reach (no TLS, no identity)"),
]
AllowAnonymous = Annotated[
    bool | None,
    switch("--allow-anonymous", "Serve xDS over TLS on an address that others can reach, to whoever connects"),
]
XdsCert = Annotated[str | None, flag("Certificate of the xDS port and its chain (PEM): turns TLS on", "FILE")]
XdsKey = Annotated[str | None, flag("Private key of xds_cert (PEM)", "FILE")]
XdsCa = Annotated[str | None, flag("Authorities of xds_cert (PEM), for provisioned gateways to believe", "FILE")]
XdsClientCa = Annotated[
    str | None, flag("Authorities of client certificates (PEM): every Envoy must show one (mutual TLS)", "FILE")
]
XdsTokens = Annotated[
    str | None,
    flag("File of the bearer tokens of gateways (YAML, SHA-256 digests): every Envoy must send one", "FILE"),
]
TrustDomain = Annotated[str | None, flag("Trust domain of the names in client certificates", "NAME")]
XdsAddress = Annotated[
    str | None, flag("Where Envoys connect; others than loopback need TLS and an identity", "HOST:PORT")
]
AdminAddress = Annotated[str | None, flag("Where health, metrics and debug output are served", "HOST:PORT")]
Domain = Annotated[
    str | None, flag("Domain of derived hosts; without it KServe's ingressDomain, else example.com", "NAME")
]
DomainTemplate = Annotated[
    str | None,
    flag(
        "Template of derived hosts; without it KServe's domainTemplate, else "
        "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}",
        "TEMPLATE",
    ),
]
PathTemplate = Annotated[
    str | None,
    flag("Template of the paths of services at the domain itself; without it KServe's pathTemplate", "TEMPLATE"),
]
UrlScheme = Annotated[
    str | None,
    flag("Scheme of the addresses that are shown; without it KServe's urlScheme, else http", "http|https"),
]
ClusterDomain = Annotated[str | None, flag("Domain of the cluster, which ends the names of Services", "NAME")]
AllowedHosts = Annotated[
    list[str] | None,
    flag("Further hosts each namespace may claim: names, *.NAME or *; namespace * means every one", "NAMESPACE=HOST"),
]
NameBackends = Annotated[
    bool | None, switch("--name-backends-in-errors", "Name the backend in the answers that a gateway gives itself")
]
TrustedHops = Annotated[
    str | None, flag("Proxies in front of the gateways whose X-Forwarded-For is believed", "NUMBER")
]
Linger = Annotated[str | None, flag("Seconds a cluster stays with Envoy after the last route to it is gone", "SECONDS")]
Patience = Annotated[
    str | None,
    flag("Seconds until a missing answer of an Envoy is told, and what does not depend on it goes on", "SECONDS"),
]
AdmissionRate = Annotated[
    str | None, flag("Streams a second that are let in; more get RESOURCE_EXHAUSTED and come again", "NUMBER")
]
ConnectionAge = Annotated[
    str | None,
    flag("Seconds until a connection is ended, so that Envoys spread over replicas; 0: never", "SECONDS"),
]
Drain = Annotated[str | None, flag("Seconds over which streams are ended when the program stops", "SECONDS")]
LastGood = Annotated[
    bool | None,
    switch(
        "--last-good/--no-last-good",
        "Keep what Envoys accepted over a restart, to serve it where the present is refused",
    ),
]
StateDirectory = Annotated[
    str | None,
    flag("Where last_good is kept; without it $XDG_STATE_HOME/xdserve or ~/.local/state/xdserve", "DIR"),
]
LogLevel = Annotated[str | None, flag("Least severe messages to log", "LEVEL")]
LogFormat = Annotated[str | None, flag("Form of the log: auto is console on a terminal, json elsewhere", "FORMAT")]
