"""The settings themselves: each with its default and what it may be."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bootstrap.address import Address
from bootstrap.router import IMAGE as ROUTER_IMAGE
from translator.objects.fields import is_address
from translator.objects.templates import DOMAIN_TEMPLATE, TemplateInvalid, domain_template, path_template
from translator.planners.options import CA_FILE, CLUSTER_DOMAIN, KSERVE_CONFIG_MAP, URL_SCHEME
from translator.planners.options import DOMAIN as DOMAIN_DEFAULT
from xdserve.settings import values
from xdserve.settings.values import (
    DOMAIN,
    IMAGE,
    LABEL,
    NAMESPACE,
    PATTERN,
    SELECTOR,
    AddressSetting,
    LogFormat,
    LogLevel,
    Provision,
    SourceSetting,
    UrlScheme,
    Word,
    short,
    wrong,
)

ENV_PREFIX = "XDSERVE_"


class Settings(BaseSettings):
    """What the program is told from outside. Frozen: a setting changes with a restart.

    No setting may be called ``port`` or ``service_*``: Kubernetes sets such variables for a Service ``xdserve``.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    source: SourceSetting = Field(
        None, description="Directory of YAML and JSON files to read and to watch, or the word kubernetes"
    )
    kubeconfig: Path | None = Field(
        None, description="Kubeconfig of the cluster; without it that of the pod, else KUBECONFIG, else ~/.kube/config"
    )
    namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.names)] = Field(
        (), description="Namespaces of the cluster to read; without any, all of them"
    )
    selector: str = Field("", description="Label selector of the InferenceServices and Inferences to serve")
    provision: Provision = Field(
        Provision.OPT_OUT,
        description="Which targets get pods of a gateway; the annotation xdserve.io/gateway says else",
    )
    gateway_image: str = Field("envoyproxy/envoy:v1.40.0", description="Image of the gateways' Envoy")
    router_image: str = Field(ROUTER_IMAGE, description="Image of the router beside them: xdserve's own")
    gateway_pull_secrets: Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.names)] = Field(
        (), description="Secrets to pull these images with; they have to be in the namespace of each gateway"
    )
    gateway_xds_address: str | None = Field(
        None,
        description="Where gateways reach xDS; without it <release>.<namespace>.svc and the port of xds_address",
    )
    gateway_address: str | None = Field(
        None, description="Where gateways listen; without it :: (IPv4 too) where the cluster has IPv6, else 0.0.0.0"
    )
    gateway_ca_file: str = Field(
        CA_FILE,
        description="File in the gateways' image of the CAs that verify backends with TLS, where a policy names none",
    )
    kserve_config_map: str = Field(
        KSERVE_CONFIG_MAP, description="KServe's ConfigMap, read for its templates of hosts; empty: not read"
    )
    gateway_replicas: int = Field(
        2, ge=1, le=100, description="Pods of each gateway, where its ServiceGateway says no other number"
    )
    gateway_pods: bool = Field(
        default=False,
        description="Look at the gateways' pods to say why they do not start; takes the right to list pods",
    )
    release: str = Field(
        "xdserve", description="Name of this installation in the cluster: of its Lease, its Secret, on its gateways"
    )
    # Above xds_address, whose check looks at them.
    allow_plaintext: bool = Field(
        default=False, description="Serve xDS as plain text on an address that others can reach (no TLS, no identity)"
    )
    allow_anonymous: bool = Field(
        default=False, description="Serve xDS over TLS on an address that others can reach, to whoever connects"
    )
    xds_cert: Path | None = Field(None, description="Certificate of the xDS port and its chain (PEM): turns TLS on")
    xds_key: Path | None = Field(None, description="Private key of xds_cert (PEM)", validate_default=True)
    xds_ca: Path | None = Field(
        None, description="Authorities of xds_cert (PEM), for provisioned gateways to believe", validate_default=True
    )
    xds_client_ca: Path | None = Field(
        None, description="Authorities of client certificates (PEM): every Envoy must show one (mutual TLS)"
    )
    xds_tokens: Path | None = Field(
        None, description="File of the bearer tokens of gateways (YAML, SHA-256 digests): every Envoy must send one"
    )
    trust_domain: str = Field("cluster.local", description="Trust domain of the names in client certificates")
    xds_address: AddressSetting = Field(
        Address("127.0.0.1", 18000), description="Where Envoys connect; others than loopback need TLS and an identity"
    )
    admin_address: AddressSetting = Field(
        Address("127.0.0.1", 19000), description="Where health, metrics and debug output are served"
    )
    domain: str | None = Field(
        None, description=f"Domain of derived hosts; without it KServe's ingressDomain, else {DOMAIN_DEFAULT}"
    )
    domain_template: str | None = Field(
        None, description=f"Template of derived hosts; without it KServe's domainTemplate, else {DOMAIN_TEMPLATE}"
    )
    path_template: str | None = Field(
        None, description="Template of the paths of services at the domain itself; without it KServe's pathTemplate"
    )
    url_scheme: UrlScheme | None = Field(
        None, description=f"Scheme of the addresses that are shown; without it KServe's urlScheme, else {URL_SCHEME}"
    )
    cluster_domain: str = Field(CLUSTER_DOMAIN, description="Domain of the cluster, which ends the names of Services")
    allowed_hosts: Annotated[Mapping[str, tuple[str, ...]], NoDecode, BeforeValidator(values.allowed_hosts)] = Field(
        {}, description="Further hosts each namespace may claim: names, *.NAME or *; namespace * means every one"
    )
    name_backends_in_errors: bool = Field(
        default=False, description="Name the backend in the answers that a gateway gives itself"
    )
    trusted_hops: int = Field(
        0, ge=0, le=100, description="Proxies in front of the gateways whose X-Forwarded-For is believed"
    )
    linger: float = Field(
        5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds a cluster stays with Envoy after the last route to it is gone",
    )
    patience: float = Field(
        15.0,
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="Seconds until a missing answer of an Envoy is told, and what does not depend on it goes on",
    )
    admission_rate: float = Field(
        1000.0,
        ge=1,
        le=1_000_000,
        allow_inf_nan=False,
        description="Streams a second that are let in; more get RESOURCE_EXHAUSTED and come again",
    )
    connection_age: float = Field(
        1800.0,
        ge=0,
        le=604_800,
        allow_inf_nan=False,
        description="Seconds until a connection is ended, so that Envoys spread over replicas; 0: never",
    )
    drain: float = Field(
        5.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds over which streams are ended when the program stops",
    )
    last_good: bool = Field(
        default=True, description="Keep what Envoys accepted over a restart, to serve it where the present is refused"
    )
    state_directory: Path | None = Field(
        None, description="Where last_good is kept; without it $XDG_STATE_HOME/xdserve or ~/.local/state/xdserve"
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="Least severe messages to log")
    log_format: LogFormat = Field(
        LogFormat.AUTO, description="Form of the log: auto is console on a terminal, json elsewhere"
    )

    @property
    def state_path(self) -> Path | None:
        """``state_directory`` or its default (XDG Base Directory Specification); None without a home directory."""
        return self.state_directory or _state_home()

    @field_validator(
        "gateway_replicas", "trusted_hops", "linger", "patience", "admission_rate", "connection_age", "drain",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _is_no_truth_value(cls, value: object) -> object:
        # In YAML yes and on are true, which pydantic would take for 1.
        if isinstance(value, bool):
            raise wrong("a number")
        return value

    @field_validator("xds_key")
    @classmethod
    def _both_or_none(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        # What is wrong itself is missing in the data, here and below: it is told once.
        if "xds_cert" in info.data and (value is None) != (info.data["xds_cert"] is None):
            raise wrong("a file, as xds_cert is given" if value is None else "none without xds_cert")
        return value

    @field_validator("xds_ca")
    @classmethod
    def _goes_with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("xds_cert", value) is None:
            raise wrong("none without xds_cert")
        if value is None and info.data.get("xds_cert") and info.data.get("source") is Word.KUBERNETES:
            raise wrong("a file, as xds_cert is given: gateways have to believe it")
        return value

    @field_validator("xds_client_ca")
    @classmethod
    def _needs_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("xds_cert", value) is None:
            raise wrong("none without xds_cert: client certificates are a part of TLS")
        return value

    @field_validator("xds_address")
    @classmethod
    def _stays_here_or_is_guarded(cls, value: Address, info: ValidationInfo) -> Address:
        if info.data.get("source") is Word.KUBERNETES:
            return value  # it has a certificate of its own there, and reviews tokens
        if not value.is_loopback and info.data.keys() >= _GUARDS and (lacking := _lacking(info.data)):
            raise wrong(f"a loopback address: {lacking}")
        return value

    @field_validator("domain", "cluster_domain", "trust_domain")
    @classmethod
    def _is_domain(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not DOMAIN.fullmatch(value.lower()):
            raise wrong(f"a DNS name, as in {cls.model_fields[str(info.field_name)].default or DOMAIN_DEFAULT}")
        return value and value.lower()

    @field_validator("domain_template", "path_template")
    @classmethod
    def _is_template(cls, value: str | None, info: ValidationInfo) -> str | None:
        parse = domain_template if info.field_name == "domain_template" else path_template
        try:
            if value is not None:
                parse(value)
        except TemplateInvalid as error:
            raise wrong(error.allowed) from None
        return value

    @field_validator("namespaces")
    @classmethod
    def _are_namespaces(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for namespace in value:
            if not re.fullmatch(LABEL, namespace):
                raise wrong(f"a namespace instead of {short(namespace)}")
        return tuple(dict.fromkeys(value))

    @field_validator("kserve_config_map")
    @classmethod
    def _is_config_map(cls, value: str) -> str:
        namespace, _, name = value.partition("/")
        if value and not (re.fullmatch(LABEL, namespace) and DOMAIN.fullmatch(name)):
            raise wrong(f"NAMESPACE/NAME, as in {KSERVE_CONFIG_MAP}, or empty")
        return value

    @field_validator("gateway_pull_secrets")
    @classmethod
    def _are_secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not DOMAIN.fullmatch(name):
                raise wrong(f"a name of a Secret instead of {short(name)}")
        return tuple(dict.fromkeys(value))

    @field_validator("selector")
    @classmethod
    def _is_selector(cls, value: str) -> str:
        if not SELECTOR.fullmatch(value.strip()):
            raise wrong("a label selector, as in team=models,stage in (test, live),!hidden")
        return value.strip()

    @field_validator("release")
    @classmethod
    def _is_release(cls, value: str) -> str:
        if not re.fullmatch(LABEL, value):
            raise wrong("a name of Kubernetes, as in xdserve")
        return value

    @field_validator("gateway_image", "router_image")
    @classmethod
    def _is_image(cls, value: str, info: ValidationInfo) -> str:
        if not IMAGE.fullmatch(value):
            raise wrong(f"an image, as in {cls.model_fields[str(info.field_name)].default}")
        return value

    @field_validator("gateway_address")
    @classmethod
    def _is_ip(cls, value: str | None) -> str | None:
        if value is not None and not is_address(value):
            raise wrong("an IP address, as in ::")
        return value

    @field_validator("gateway_ca_file")
    @classmethod
    def _is_file(cls, value: str) -> str:
        if not value.startswith("/") or not value.isprintable():
            raise wrong(f"an absolute path, as in {CA_FILE}")
        return value

    @field_validator("gateway_xds_address")
    @classmethod
    def _can_be_reached(cls, value: str | None) -> str | None:
        if value is None:
            return None
        host, colon, port = value.lower().rpartition(":")
        if not (colon and DOMAIN.fullmatch(host) and re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
            raise wrong("HOST:PORT with a name of the cluster, as in xdserve.xdserve.svc:18000")
        return f"{host}:{int(port)}"

    @field_validator("allowed_hosts")
    @classmethod
    def _are_patterns(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for namespace, patterns in value.items():
            if not NAMESPACE.fullmatch(namespace):
                raise wrong(f"a namespace or * instead of {short(namespace)}")
            for pattern in patterns:
                if not PATTERN.fullmatch(pattern.lower()):
                    raise wrong(f"a DNS name, *.NAME or * instead of {short(pattern)}")
        return {namespace: tuple(p.lower() for p in patterns) for namespace, patterns in value.items()}


_GUARDS = {"allow_plaintext", "allow_anonymous", "xds_cert", "xds_client_ca", "xds_tokens"}


def _lacking(given: Mapping[str, Any]) -> str | None:
    """What keeps xDS from an address that others can reach, in words; None if nothing does."""
    identified = given["xds_client_ca"] is not None or given["xds_tokens"] is not None
    if given["xds_cert"] is not None:
        free = identified or given["allow_anonymous"]
        return None if free else "without xds_tokens or xds_client_ca any peer is served, and needs --allow-anonymous"
    if identified:
        # Also with leave for plain text: whoever reads a token once is that gateway from then on.
        return "tokens are not taken as plain text, and need xds_cert"
    return None if given["allow_plaintext"] else "without xds_cert xDS is plain text, and needs --allow-plaintext"


def _state_home() -> Path | None:
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    if home.is_absolute():  # others are to be ignored
        return home / "xdserve"
    try:
        return Path.home() / ".local" / "state" / "xdserve"
    except RuntimeError:
        return None
