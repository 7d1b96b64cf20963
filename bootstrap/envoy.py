"""The bootstrap of one Envoy: who it is, where its configuration comes from, and what must not come from there.

Each value was tried on a stock Envoy 1.40; tests start one with what is rendered here.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from typing import Any

import yaml

from bootstrap.address import Address
from bootstrap.credentials import Credentials, check_token, http_filters, transport_socket
from bootstrap.credentials import secrets as secrets_of

# Gateways' resources are named by namespace and name with a "/" between: no name of theirs is equal to this one.
XDS_CLUSTER = "xdserve"
DEFAULT_ADMIN = Address("127.0.0.1", 9901)
MAX_CONNECTIONS = 50_000

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_GATEWAY = re.compile(rf"{_LABEL}/(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_NODE_ID = re.compile(r"[!-~]{1,512}")

# Statistics make up much of what a cluster costs Envoy. These are kept: what tells about requests, connections,
# endpoints, configuration and the process itself.
_STATS_PREFIXES = (
    *("cluster_manager.", "control_plane.", "listener_manager.", "load_reporter.", "overload.", "sds.", "server."),
    f"cluster.{XDS_CLUSTER}.ssl.",
)
_STATS_OF_CLUSTER = (
    r"assignment_.*|bind_errors|external\..*|health_check\..*|internal\..*|lb_healthy_panic|membership_.*",
    r"outlier_detection\..*|update_(attempt|success|failure|rejected|empty|time)|warming_state",
    r"upstream_cx_(active|total|connect_fail|connect_timeout|overflow|pool_overflow|destroy_with_active_rq)",
    r"upstream_rq_(active|total|completed|[1-5]xx|[1-5][0-9][0-9]|time|timeout|per_try_timeout|cancelled)",
    r"upstream_rq_(pending_.*|retry.*|rx_reset|tx_reset|maintenance_mode)",
)
_STATS_OF_HTTP = (
    r"downstream_cx_(active|total|overload_disable_keepalive|delayed_close_timeout|drain_close)",
    r"downstream_rq_(active|total|completed|[1-5]xx|time|timeout|overload_close|rx_reset|tx_reset|too_large)",
    r"downstream_rq_(idle_timeout|response_before_rq_complete)|no_route|no_cluster|rds\..*",
)
_STATS_OF_LISTENER = (
    r"downstream_cx_(active|total|overflow|overload_reject)|downstream_global_cx_overflow|no_filter_chain_match",
)
_STATS = tuple(
    rf"{prefix}\..*\.({'|'.join(names)})"
    for prefix, names in (("cluster", _STATS_OF_CLUSTER), ("http", _STATS_OF_HTTP), ("listener", _STATS_OF_LISTENER))
)


def check_gateway(gateway: str) -> str:
    """The gateway's name, if it is one.

    Raises:
        ValueError: it is not ``NAMESPACE/NAME``.
    """
    if not _GATEWAY.fullmatch(gateway):
        raise ValueError("NAMESPACE/NAME")
    return gateway


def default_node_id(gateway: str) -> str:
    """``<namespace>/<name>/<host name>``: the same after a restart, and on Kubernetes one for each pod."""
    return f"{gateway}/{socket.gethostname()}"


def render(
    gateway: str,
    xds_address: Address | str | Sequence[Address | str],
    *,
    credentials: Credentials | None = None,
    node_id: str | None = None,
    admin_address: Address | str = DEFAULT_ADMIN,
) -> dict[str, Any]:
    """Make the bootstrap of an Envoy of ``gateway``.

    Args:
        gateway: ``<namespace>/<name>``, sent as ``node.cluster``: which gateway's resources the Envoy gets.
        xds_address: where the server is: an IP literal, or a name that Envoy looks up again and again; several are
            replicas, any of which will do.
        credentials: how they prove to each other who they are; its files must hold what `secrets` gives.
        node_id: the Envoy's own name; two Envoys of a gateway need two. `default_node_id` without one.
        admin_address: where Envoy serves its admin interface; port 0 takes a free one.

    Returns:
        ``envoy.config.bootstrap.v3.Bootstrap`` in its JSON form, with proto field names.

    Raises:
        ValueError: one of them is wrong; the message says what is allowed.
    """
    node = _node(gateway, node_id)
    servers, admin = _servers(xds_address), _address(admin_address)
    credentials = credentials or Credentials()
    check_token(credentials, servers)
    return {
        "node": node,
        "dynamic_resources": {"ads_config": _ads(), "cds_config": _from_ads(), "lds_config": _from_ads()},
        "static_resources": {"clusters": [_xds_cluster(servers, credentials)]},
        "cluster_manager": {"load_stats_config": _load_stats()},
        # The limit on connections is for clients: whoever looks into an overloaded Envoy must get through.
        "admin": {"address": _socket(admin), "ignore_global_conn_limit": True},
        "stats_config": _stats_config(),
        "stats_flush_on_admin": True,
        "overload_manager": _overload_manager(),
        "layered_runtime": _runtime(),
    }


def secrets(
    credentials: Credentials, xds_address: Address | str | Sequence[Address | str]
) -> dict[str, dict[str, Any]]:
    """Make the files that must be in ``credentials.directory``: contents (JSON form) by file name.

    Raises:
        ValueError: an address is none.
    """
    return secrets_of(credentials, _servers(xds_address))


def to_yaml(bootstrap: dict[str, Any]) -> str:
    """The text that ``envoy --config-path`` reads."""
    return yaml.safe_dump(bootstrap, sort_keys=False, width=120, allow_unicode=True)


def to_json(bootstrap: dict[str, Any]) -> str:
    """The text that ``envoy --config-yaml`` or a ``.json`` file takes."""
    return json.dumps(bootstrap, indent=2, ensure_ascii=False) + "\n"


def _node(gateway: str, node_id: str | None) -> dict[str, str]:
    node_id = default_node_id(check_gateway(gateway)) if node_id is None else node_id
    if not _NODE_ID.fullmatch(node_id):
        raise ValueError("1..512 printable ASCII characters without blanks")
    return {"id": node_id, "cluster": gateway}


def _servers(addresses: Address | str | Sequence[Address | str]) -> list[Address]:
    several = [addresses] if isinstance(addresses, Address | str) else addresses
    servers = list(dict.fromkeys(map(_address, several)))
    if not servers or any(server.port == 0 for server in servers):
        raise ValueError("a port 1..65535" if servers else "one address or more")
    return servers


def _address(address: Address | str) -> Address:
    return Address.parse(address) if isinstance(address, str) else address


def _socket(address: Address) -> dict[str, Any]:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _ads() -> dict[str, Any]:
    return {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        # The node is 61 KB of extension names: once a stream is enough.
        "set_node_on_first_message_only": True,
        "grpc_services": [
            {
                "envoy_grpc": {
                    "cluster_name": XDS_CLUSTER,
                    # Envoy's own bounds are 0.5 s and 30 s: too slow to meet a restarted server again.
                    "retry_policy": {"retry_back_off": {"base_interval": "0.250s", "max_interval": "5s"}},
                }
            }
        ],
    }


def _load_stats() -> dict[str, Any]:
    # Envoy asks anew every five seconds where a server takes no reports.
    return {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
    }


def _from_ads() -> dict[str, Any]:
    # Without a limit: an Envoy that never heard from the server must not call itself ready.
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _xds_cluster(servers: Sequence[Address], credentials: Credentials) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _socket(server)}} for server in servers]
    # STRICT_DNS takes IP literals too, and a name that is not found holds up none of the others.
    names = any(not server.is_ip for server in servers)
    discovery = {"type": "STRICT_DNS", "dns_lookup_family": "ALL"} if names else {"type": "STATIC"}
    socket = transport_socket(credentials, servers)
    return {
        "name": XDS_CLUSTER,
        **discovery,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": endpoints}]},
        **({"transport_socket": socket} if socket else {}),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _http_options(credentials)
        },
    }


def _http_options(credentials: Credentials) -> dict[str, Any]:
    filters = http_filters(credentials)
    return {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            # A dead peer behind a silent network is noticed, and the stream opened anew.
            "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
        },
        **({"http_filters": filters} if filters else {}),
    }


def _stats_config() -> dict[str, Any]:
    patterns: list[dict[str, Any]] = [{"prefix": prefix} for prefix in _STATS_PREFIXES]
    patterns += [{"safe_regex": {"regex": regex}} for regex in _STATS]
    return {"stats_matcher": {"inclusion_list": {"patterns": patterns}}}


def _overload_manager() -> dict[str, Any]:
    # Memory has no monitor: the cgroup's figure counts page cache, which the kernel would give back, and a fixed
    # heap needs the limit of the pod, which only who makes the pod knows.
    name = "envoy.resource_monitors.global_downstream_max_connections"
    kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    config = {"@type": f"type.googleapis.com/{kind}", "max_active_downstream_connections": MAX_CONNECTIONS}
    return {"resource_monitors": [{"name": name, "typed_config": config}]}


def _runtime() -> dict[str, Any]:
    # Envoy refuses regular expressions above a program size of 100, and with one all routes of the gateway;
    # RE2 itself bounds their memory, in Envoy and where policies are read alike.
    return {"layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 2**32 - 1}}]}
