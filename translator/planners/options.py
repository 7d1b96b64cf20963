"""What the operator decides for all services, and the defaults of what users leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

REQUEST_TIMEOUT = 0
IDLE_TIMEOUT = 300_000
CONNECT_TIMEOUT = 2_000
"""Milliseconds; the meaning of each is the policy's ``timeouts``."""


MAX_REQUEST_BYTES = 16 << 20
"""How much of a request body is kept for retries. It bounds and reserves nothing."""

CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""The public authorities in Envoy's images, as Debian and Ubuntu have them."""

DOMAIN, URL_SCHEME = "example.com", "http"
"""KServe's own defaults."""

CLUSTER_DOMAIN = "cluster.local"

KSERVE_CONFIG_MAP = "kserve/inferenceservice-config"
"""Where KServe is told how it is to name hosts: namespace and name."""

MOST_NAMED = 16
"""Names in one line; Envoy refuses an answer of more than 4,096 bytes."""


@dataclass(frozen=True, slots=True)
class Options:
    """The operator's settings that planning depends on.

    ``domain``, the templates and ``url_scheme`` say how services are called; what is None is told by the ConfigMap
    ``kserve_config_map`` (``<namespace>/<name>``, empty for none). ``cluster_domain`` ends the names of Services.

    ``allowed_hosts`` has for each namespace (``*`` for all) the patterns of hosts that it may claim: a name, or ``*.``
    and a suffix. ``gateway_address`` is where gateways listen whose ServiceGateway does not say it. ``ca_file`` has the
    authorities, in the gateways' image, that backends are verified by where a policy names none. ``selective``: only
    InferenceServices and Inferences of some labels are looked at.
    """

    domain: str | None = None
    domain_template: str | None = None
    path_template: str | None = None
    url_scheme: str | None = None
    kserve_config_map: str = KSERVE_CONFIG_MAP
    cluster_domain: str = CLUSTER_DOMAIN
    allowed_hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trusted_hops: int = 0
    name_backends_in_errors: bool = False
    selective: bool = False
    ca_file: str = CA_FILE
    gateway_address: str | None = None

    def allows_host(self, namespace: str, host: str) -> bool:
        """Whether the operator lets a namespace claim this host."""
        patterns = (*self.allowed_hosts.get(namespace, ()), *self.allowed_hosts.get("*", ()))
        return any(_matches(pattern, host) for pattern in patterns)


def _matches(pattern: str, host: str) -> bool:
    return pattern in {"*", host} or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first of some names, and how many there are beside them."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
