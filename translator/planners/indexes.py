"""The one table of indexes: how objects are found by what they say. Each is a pure function of one object."""

from __future__ import annotations

from collections.abc import Iterator

from translator.objects import Object
from translator.objects.core import EndpointSlice
from translator.objects.gateway import ServiceGateway
from translator.objects.grant import ReferenceGrant
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.policy import TrafficPolicy
from translator.objects.ref import Ref
from translator.view import Index

Attached = TrafficPolicy | ServiceGateway


def target_of(found: Attached) -> Ref:
    """What a policy or gateway is attached to; always in its own namespace."""
    return found.spec.target_ref.ref(found.metadata.namespace)


def age(found: Object) -> tuple[str, Ref]:
    """Sorts the older first; objects from files have no time of creation, so that their names decide."""
    return found.metadata.creation_timestamp or "", found.ref


def _slice_service(found: EndpointSlice) -> Iterator[tuple[str, str]]:
    if found.service:
        yield found.ref.namespace, found.service


def _target(found: Attached) -> Iterator[Ref]:
    yield target_of(found)


def _gateway_of_target(found: Attached) -> Iterator[tuple[str, str]]:
    target = target_of(found)
    yield target.namespace, target.name


def _gateway_of_service(found: InferenceService | Inference) -> Iterator[tuple[str, str]]:
    yield found.ref.namespace, found.ref.name


def _claimed_hosts(found: ServiceGateway) -> Iterator[str]:
    yield from found.spec.hosts


def _granted(found: ReferenceGrant) -> Iterator[tuple[str, str]]:
    for namespace in {each.namespace for each in found.spec.from_}:
        yield found.ref.namespace, namespace


SLICES = Index("slices of service", {EndpointSlice: _slice_service})
"""``(namespace, service)``"""

POLICIES = Index("policies of target", {TrafficPolicy: _target})
GATEWAYS = Index("gateways of target", {ServiceGateway: _target})

NAMED = Index(
    "claims of a gateway's name",
    {
        InferenceService: _gateway_of_service,
        Inference: _gateway_of_service,
        TrafficPolicy: _gateway_of_target,
        ServiceGateway: _gateway_of_target,
    },
)
"""``(namespace, name)`` of the target: whatever makes a gateway of this name."""

HOSTS = Index("claims of a host", {ServiceGateway: _claimed_hosts})

GRANTS = Index("grants between namespaces", {ReferenceGrant: _granted})
"""``(namespace of the grant, namespace that it trusts)``"""

INDEXES = (SLICES, POLICIES, GATEWAYS, NAMED, HOSTS, GRANTS)
