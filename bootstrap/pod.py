"""What the bootstrap of an Envoy in a pod has beside xDS: a listener for the kubelet, who reaches its address only.

Three paths: `/ready` (Envoy has its configuration and does not drain), `/live` (its main thread and its worker answer),
and `/drain`, which a preStop hook calls. It answers when no connection is left, or `limit` is over: until a hook has
returned, the kubelet sends no SIGTERM, which would cut streams. Nothing else of the admin interface can be reached.
Where a router is beside Envoy, `/router` asks whether it lives: it listens on loopback, where no kubelet comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bootstrap.address import Address

ADMIN_CLUSTER, POD_CLUSTER, ROUTER_CLUSTER = "admin", "pod", "router"
PROBE_PORT = 15021
"""By custom the port of a proxy's health; `free_port` tells which it is in a given pod."""

READY, LIVE, DRAIN, PAUSE, ROUTER = "/ready", "/live", "/drain", "/pause", "/router"
DRAIN_HEADER = "x-xdserve-drain"

_TYPE = "type.googleapis.com/envoy.extensions.filters"
_LUA, _FAULT, _ROUTER = (f"envoy.filters.http.{name}" for name in ("lua", "fault", "router"))

# A client that keeps a connection open learns from its next answer that this one is to be closed (HTTP/1) or goes away
# (HTTP/2), since the health check fails. It goes on being served for as long as Services still lead here.
_SCRIPT = """\
function envoy_on_request(handle)
  local function call(cluster, method, path)
    local headers = {[":method"] = method, [":path"] = path, [":authority"] = "pod", ["%(header)s"] = "%(key)s"}
    return handle:httpCall(cluster, headers, "", 5000)
  end
  call("%(admin)s", "POST", "/healthcheck/fail")
  call("%(admin)s", "POST", "/drain_listeners?graceful&skip_exit")
  for second = 1, %(limit)d do
    call("%(pod)s", "GET", "%(pause)s")
    local _, stats = call("%(admin)s", "GET", "/stats?filter=^http\\\\.gateway\\\\.downstream_cx_active$")
    if second >= %(linger)d and stats and string.find(stats, ": 0") then
      return
    end
  end
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The kubelet's listener.

    Args:
        address: where it listens; the kubelet comes from outside of the pod, never by its loopback.
        admin: where Envoy serves its admin interface.
        key: what a call of `/drain` must have in the header `x-xdserve-drain`: hexadecimal digits.
        linger: seconds that draining takes at least: until Services lead nobody here any more.
        limit: seconds that it takes at most.
        router: where the router beside Envoy listens, if there is one.
    """

    address: Address
    admin: Address
    key: str
    linger: int = 5
    limit: int = 50
    router: Address | None = None


def in_pod(bootstrap: dict[str, Any], pod: Pod) -> dict[str, Any]:
    """A bootstrap of `render` with the kubelet's listener, and without the node's id: that is a flag, by pod."""
    static = bootstrap["static_resources"]
    clusters = [*static["clusters"], _cluster(ADMIN_CLUSTER, pod.admin), _cluster(POD_CLUSTER, _inside(pod.address))]
    if pod.router is not None:
        clusters.append(_cluster(ROUTER_CLUSTER, pod.router))
    node = {name: value for name, value in bootstrap["node"].items() if name != "id"}
    return bootstrap | {"node": node, "static_resources": {"listeners": [_listener(pod)], "clusters": clusters}}


def free_port(wanted: int, taken: int) -> int:
    """A port for the pod's own use, where a gateway may have `taken` the one wanted."""
    return wanted if wanted != taken else wanted + 1


def _inside(address: Address) -> Address:
    return Address("::1" if ":" in address.host else "127.0.0.1", address.port)


def _socket(address: Address) -> dict[str, Any]:
    # Where the pod has IPv6, the kubelet may still come by IPv4.
    both = {"ipv4_compat": True} if address.host == "::" else {}
    return {"socket_address": {"address": address.host, "port_value": address.port, **both}}


def _cluster(name: str, address: Address) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _socket(address)}}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _listener(pod: Pod) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "pod",
        "codec_type": "HTTP1",
        "stream_idle_timeout": "0s",  # draining is a long silence
        "route_config": {
            "name": "pod",
            "virtual_hosts": [{"name": "pod", "domains": ["*"], "routes": _routes(pod)}],
        },
        "http_filters": [
            {"name": _LUA, "disabled": True, "typed_config": {"@type": f"{_TYPE}.http.lua.v3.Lua"}},
            {"name": _FAULT, "disabled": True, "typed_config": {"@type": f"{_TYPE}.http.fault.v3.HTTPFault"}},
            {"name": _ROUTER, "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "name": "pod",
        "address": _socket(pod.address),
        "filter_chains": [chain],
        # An overloaded Envoy is still alive, and must still be able to drain.
        "ignore_global_conn_limit": True,
    }


def _routes(pod: Pod) -> list[dict[str, Any]]:
    return [
        _get(READY, ADMIN_CLUSTER, "/ready"),
        _get(LIVE, ADMIN_CLUSTER, "/hot_restart_version"),  # the shortest thing that the main thread always answers
        *([] if pod.router is None else [_get(ROUTER, ROUTER_CLUSTER, "/healthz")]),
        _keyed_route(pod, DRAIN, {_LUA: _script(pod)}),
        _keyed_route(pod, PAUSE, {_FAULT: _second()}),
    ]


def _get(path: str, cluster: str, path_there: str) -> dict[str, Any]:
    methods = {"name": ":method", "string_match": {"exact": "GET"}}
    route = {"cluster": cluster, "prefix_rewrite": path_there, "timeout": "2s"}
    return {"match": {"path": path, "headers": [methods]}, "route": route}


def _keyed_route(pod: Pod, path: str, filters: dict[str, Any]) -> dict[str, Any]:
    key = {"name": DRAIN_HEADER, "string_match": {"exact": pod.key}}
    return {
        "match": {"path": path, "headers": [key]},
        "direct_response": {"status": 200},
        "typed_per_filter_config": filters,
    }


def _script(pod: Pod) -> dict[str, Any]:
    text = _SCRIPT % {
        "header": DRAIN_HEADER, "key": pod.key, "admin": ADMIN_CLUSTER, "pod": POD_CLUSTER, "pause": PAUSE,
        "limit": pod.limit, "linger": pod.linger,
    }  # fmt: skip
    return {"@type": f"{_TYPE}.http.lua.v3.LuaPerRoute", "source_code": {"inline_string": text}}


def _second() -> dict[str, Any]:
    delay = {"fixed_delay": "1s", "percentage": {"numerator": 100}}
    return {"@type": f"{_TYPE}.http.fault.v3.HTTPFault", "delay": delay}
