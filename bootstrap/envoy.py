"""The bootstrap of one Envoy: who it is, where its configuration comes from, and what must not come from there.

Each value was tried on a stock Envoy 1.40; tests start one with what is rendered here.
"""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import yaml

from bootstrap.address import Address

# Gateways' resources are named by namespace and name with a "/" between: no name of theirs is equal to this one.
XDS_CLUSTER = "xdserve"
DEFAULT_ADMIN = Address("127.0.0.1", 9901)
MAX_CONNECTIONS = 50_000

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_GATEWAY = re.compile(rf"{_LABEL}/(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_NODE_ID = re.compile(r"[!-~]{1,512}")

# Statistics make up much of what a cluster costs Envoy. These are kept: what tells about requests, connections,
# endpoints, configuration and the process itself.
_STATS_PREFIXES = ("cluster_manager.", "control_plane.", "listener_manager.", "overload.", "server.")
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
    xds_address: Address | str,
    *,
    node_id: str | None = None,
    admin_address: Address | str = DEFAULT_ADMIN,
    max_connections: int = MAX_CONNECTIONS,
) -> dict[str, Any]:
    """Make the bootstrap of an Envoy of ``gateway``.

    Args:
        gateway: ``<namespace>/<name>``, sent as ``node.cluster``: which gateway's resources the Envoy gets.
        xds_address: where the server is: an IP literal, or a name that Envoy looks up again and again.
        node_id: the Envoy's own name; two Envoys of a gateway need two. `default_node_id` without one.
        admin_address: where Envoy serves its admin interface; port 0 takes a free one.
        max_connections: connections from clients at one time; more are refused.

    Returns:
        ``envoy.config.bootstrap.v3.Bootstrap`` in its JSON form, with proto field names.

    Raises:
        ValueError: one of them is wrong; the message says what is allowed.
    """
    node_id = default_node_id(check_gateway(gateway)) if node_id is None else node_id
    if not _NODE_ID.fullmatch(node_id):
        raise ValueError("1..512 printable ASCII characters without blanks")
    server, admin = _address(xds_address), _address(admin_address)
    if server.port == 0:
        raise ValueError("a port 1..65535")
    return {
        "node": {"id": node_id, "cluster": gateway},
        "dynamic_resources": {"ads_config": _ads(), "cds_config": _from_ads(), "lds_config": _from_ads()},
        "static_resources": {"clusters": [_xds_cluster(server)]},
        # The limit on connections is for clients: whoever looks into an overloaded Envoy must get through.
        "admin": {"address": _socket(admin), "ignore_global_conn_limit": True},
        "stats_config": _stats_config(),
        "stats_flush_on_admin": True,
        "overload_manager": _overload_manager(max_connections),
        "layered_runtime": _runtime(),
    }


def to_yaml(bootstrap: dict[str, Any]) -> str:
    """The text that ``envoy --config-path`` reads."""
    return yaml.safe_dump(bootstrap, sort_keys=False, width=120, allow_unicode=True)


def to_json(bootstrap: dict[str, Any]) -> str:
    """The text that ``envoy --config-yaml`` or a ``.json`` file takes."""
    return json.dumps(bootstrap, indent=2, ensure_ascii=False) + "\n"


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


def _from_ads() -> dict[str, Any]:
    # Without a limit: an Envoy that never heard from the server must not call itself ready.
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _xds_cluster(server: Address) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _socket(server)}}
    discovery = {"type": "STATIC"} if server.is_ip else {"type": "STRICT_DNS", "dns_lookup_family": "ALL"}
    return {
        "name": XDS_CLUSTER,
        **discovery,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    # A dead peer behind a silent network is noticed, and the stream opened anew.
                    "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
                },
            }
        },
    }


def _stats_config() -> dict[str, Any]:
    patterns: list[dict[str, Any]] = [{"prefix": prefix} for prefix in _STATS_PREFIXES]
    patterns += [{"safe_regex": {"regex": regex}} for regex in _STATS]
    return {"stats_matcher": {"inclusion_list": {"patterns": patterns}}}


def _overload_manager(max_connections: int) -> dict[str, Any]:
    # Memory has no monitor: the cgroup's figure counts page cache, which the kernel would give back, and a fixed
    # heap needs the limit of the pod, which only who makes the pod knows.
    name = "envoy.resource_monitors.global_downstream_max_connections"
    kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    config = {"@type": f"type.googleapis.com/{kind}", "max_active_downstream_connections": max_connections}
    return {"resource_monitors": [{"name": name, "typed_config": config}]}


def _runtime() -> dict[str, Any]:
    # Envoy refuses regular expressions above a program size of 100, and with one all routes of the gateway;
    # RE2 itself bounds their memory, in Envoy and where policies are read alike.
    return {"layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 2**32 - 1}}]}
