"""How one object names another: the key under which everything is read, planned and reported."""

from __future__ import annotations

from typing import NamedTuple

KSERVE = "serving.kserve.io"
KUBEDL = "serving.kubedl.io"
XDSERVE = "xdserve.io"
DISCOVERY = "discovery.k8s.io"
GATEWAY_API = "gateway.networking.k8s.io"
CORE = ""

DEFAULT_NAMESPACE = "default"


class Ref(NamedTuple):
    """An object's identity: API group (``""`` is the core group), kind, namespace and name."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """``InferenceService models/iris``: what every message calls the object."""
        return f"{self.kind} {self.namespace}/{self.name}"


class Origin(NamedTuple):
    """Where a value came from: the object and the path of the field in it (``spec.rules[0].split``)."""

    object: Ref
    field: str

    def __str__(self) -> str:
        return f"{self.object} {self.field}"
