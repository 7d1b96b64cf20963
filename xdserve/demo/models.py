"""The demo's model servers: routers with their simulation, each a process, where the examples have their endpoints."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from xdserve.demo.processes import Child, Children

HOST = "127.0.0.1"
PLACES = 2
"""Requests that the router of the language model lets run at once."""
QUEUE = 4
"""Requests that wait before it, at most."""
_TOKEN_MS = 100
_SIMULATED = {"ADDRESS": HOST, "LOG_LEVEL": "warning", "MAX_CONCURRENCY": "100", "SHUTDOWN_SECONDS": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model server: `port` and `grpc` are its ports in the examples, `upstream` that of the model behind it."""

    name: str
    ref: str
    port: int
    variant: str = ""
    grpc: int | None = None
    upstream: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def environment(self, ports: Mapping[int, int]) -> dict[str, str]:
        """Its variables; `ports` are the real ones by those of the examples."""
        found = {**_SIMULATED, "MODEL_REF": self.ref, "VARIANT": self.variant, "PORT": str(ports[self.port])}
        if self.grpc is not None:
            found["GRPC_PORT"] = str(ports[self.grpc])
        if self.upstream is not None:
            found |= {"UPSTREAM_URL": f"http://{HOST}:{ports[self.upstream]}", "UPSTREAM_PROTOCOL": "openai"}
        return {**found, **self.settings}

    def ports(self) -> list[int]:
        """Where it listens in the examples."""
        return [port for port in (self.port, self.grpc) if port is not None]


LLM = Model(name="llm-model", ref="llm", port=9021, variant="llm", settings={"PROCESSING_MS": str(_TOKEN_MS)})
ROUTER = Model(
    name="llm-router", ref="llm", port=9022, upstream=LLM.port,
    settings={"MAX_CONCURRENCY": str(PLACES), "QUEUE_LIMIT": str(QUEUE)},
)  # fmt: skip
MODELS = (
    Model(name="iris-stable", ref="iris", port=9001, grpc=9005, variant="stable"),
    Model(name="iris-v2", ref="iris", port=9002, grpc=9006, variant="v2"),
    Model(name="iris-explainer", ref="iris", port=9003, variant="explainer"),
    Model(name="iris-transformer", ref="iris", port=9004, variant="transformer"),
    Model(name="mnist-v1", ref="mnist", port=9011, grpc=9013, variant="v1"),
    Model(name="mnist-v2", ref="mnist", port=9012, grpc=9014, variant="v2"),
    LLM,
    ROUTER,
)


def start(children: Children, model: Model, ports: Mapping[int, int]) -> Child:
    """Start one; it is not waited for."""
    ours = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "PYTHONPATH"}}
    command = [sys.executable, "-m", "xdserve", "router"]
    return children.start(model.name, command, env=ours | model.environment(ports))
