"""Real Envoys for tests."""

from __future__ import annotations

import json
from contextlib import contextmanager

from tests.support.processes import Children, free_ports
from tests.support.wait import wait_until
from xdserve.demo.envoy import Envoy, Launch, find, start

__all__ = ["Envoy", "envoy_binary", "running_envoy", "static_bootstrap", "wait_live"]

envoy_binary = find


@contextmanager
def running_envoy(folder, bootstrap, admin_port, *, name="envoy", concurrency=1):
    """Run an Envoy inside the block; its log is `<folder>/<name>.log`.

    `bootstrap` is a text (YAML or JSON) or a dict, with its admin interface at 127.0.0.1:`admin_port`.
    """
    text = bootstrap if isinstance(bootstrap, str) else json.dumps(bootstrap)
    with Children(folder) as children:
        admin = f"127.0.0.1:{admin_port}"
        launch = Launch(binary=find(), bootstrap=text, admin=admin, name=name, concurrency=concurrency)
        yield start(children, launch)


async def wait_live(envoy, seconds=20.0):
    """Wait until the admin interface answers: the process is up, configured or not."""
    await wait_until(envoy.live, seconds, "Envoy's admin interface")


def static_bootstrap(clusters, routes, *, port, admin_port):
    """A bootstrap without xDS: `clusters` are lists of ports by name, `routes` Envoy's own."""
    return {
        "admin": {"address": _address(admin_port)},
        "static_resources": {
            "clusters": [_cluster(name, ports) for name, ports in clusters.items()],
            "listeners": [{"name": "edge", "address": _address(port), "filter_chains": [_chain(routes)]}],
        },
    }


def pick_ports(count):
    """Free ports of 127.0.0.1."""
    return free_ports(count)


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name, ports):
    endpoints = [{"endpoint": {"address": _address(port)}} for port in ports]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _chain(routes):
    extensions = "envoy.extensions.filters"
    manager = {
        "@type": f"type.googleapis.com/{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "route_config": {"name": "edge", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"type.googleapis.com/{extensions}.http.router.v3.Router"},
            }
        ],
    }
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
