"""The resources of the Kubernetes API that are read: one table."""

from __future__ import annotations

from dataclasses import dataclass

from translator.objects import (
    EndpointSlice,
    Inference,
    InferenceService,
    Object,
    ReferenceGrant,
    Service,
    ServiceGateway,
    TrafficPolicy,
)


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as the API has it; of ``versions``, which mean the same, the first that is served is read."""

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str

    def __str__(self) -> str:
        """``inferenceservices.serving.kserve.io``, as CRDs and kubectl call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def root(self, version: str) -> str:
        """Where discovery describes the group's version."""
        return f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"

    def path(self, version: str, namespace: str | None) -> str:
        """Where the objects of one namespace, or of all, are listed and watched."""
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{self.root(version)}{within}/{self.plural}"


def _of(model: type[Object], plural: str, *other_versions: str) -> Resource:
    return Resource(model.GROUP, (model.VERSION, *other_versions), plural, model.KIND)


@dataclass(frozen=True, slots=True)
class Scope:
    """What one reflector follows: a resource in one namespace or (None) all, of some labels or (empty) all."""

    resource: Resource
    namespace: str | None = None
    selector: str = ""


SLICES = _of(EndpointSlice, "endpointslices")
TARGETS = (_of(InferenceService, "inferenceservices"), _of(Inference, "inferences"))
"""What the label selector of the settings is about."""

RESOURCES = (
    *TARGETS,
    _of(TrafficPolicy, "trafficpolicies"),
    _of(ServiceGateway, "servicegateways"),
    _of(ReferenceGrant, "referencegrants", *ReferenceGrant.OTHER_VERSIONS),
    _of(Service, "services"),
    SLICES,
)
