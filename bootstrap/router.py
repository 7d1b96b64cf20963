"""The router in a gateway's pod: a second container, told by its environment what docs/router.md says.

It listens on the pod's loopback alone, so that nobody passes Envoy by, and calls the model through Envoy's listener.
"""

from __future__ import annotations

from typing import Any

from bootstrap.address import Address
from translator.plan import GatewayPlan, Router

NAME = "router"
LOOPBACK = "127.0.0.1"

IMAGE = "xdserve:0.1.0"
"""The program itself, which has the router in it."""

LONGEST_SECONDS = 86_400
"""How long a model may take is Envoy's to say, by the policy's timeouts: the router waits for any answer of its."""

END_SECONDS = 5
"""What is left to the router when Envoy has drained and nobody asks it any more."""

RESOURCES = {
    # 72 MB when it has nothing to do. It holds 256 MiB of requests at most, and what they are parsed to.
    "requests": {"cpu": "50m", "memory": "96Mi"},
    "limits": {"memory": "1Gi"},
}

_ANY = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - where a gateway listens, as loopback reaches it


def address(router: Router) -> Address:
    """Where it listens."""
    return Address(LOOPBACK, router.port)


def upstream(gateway: GatewayPlan) -> str:
    """Where it reaches the gateway's listener, from within the pod."""
    return f"http://{Address(_ANY.get(gateway.address, gateway.address), gateway.port)}"


def container(router: Router, gateway: GatewayPlan, image: str) -> dict[str, Any]:
    """What of the container is its own; how it is probed, ended and confined is as with all of the pod's."""
    return {
        "name": NAME,
        "image": image,
        "command": ["xdserve"],
        "args": ["router"],
        "env": [
            {"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": name, "value": _literal(value)} for name, value in _environment(router, gateway).items()),
        ],
        "resources": {kind: dict(amounts) for kind, amounts in RESOURCES.items()},
    }


def _environment(router: Router, gateway: GatewayPlan) -> dict[str, str]:
    caches = {"KV_ENDPOINTS": ",".join(router.kv_endpoints)} if router.kv_endpoints else {}
    return {
        "MODEL_REF": router.model,
        "MAX_CONCURRENCY": str(router.max_concurrency),
        "OVERFLOW": router.overflow,
        **caches,
        "ADDRESS": LOOPBACK,
        "PORT": str(router.port),
        "UPSTREAM_URL": upstream(gateway),
        "UPSTREAM_PROTOCOL": router.protocol,
        "UPSTREAM_HEADERS": "all",  # rules match by them
        "UPSTREAM_TIMEOUT_SECONDS": str(LONGEST_SECONDS),
        "SHUTDOWN_SECONDS": str(END_SECONDS),
    }


def _literal(value: str) -> str:
    """The value of a variable in which `$(NAME)` is not another one's."""
    return value.replace("$", "$$")
