"""Whether a policy or gateway is attached to anything: its target exists, and it is the oldest of its kind there."""

from __future__ import annotations

from typing import TypeVar

from translator.objects.core import Service
from translator.objects.gateway import ServiceGateway
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.policy import TrafficPolicy
from translator.objects.ref import Origin, Ref
from translator.plan import Finding, Reason
from translator.planners.indexes import GATEWAYS, POLICIES, Attached, age, target_of
from translator.planners.options import Options
from translator.view import Absent, Index, View

TARGETS: dict[str, type[InferenceService | Inference | Service]] = {
    "InferenceService": InferenceService,
    "Inference": Inference,
    "Service": Service,
}

AttachedT = TypeVar("AttachedT", TrafficPolicy, ServiceGateway)


def attached(view: View, index: Index, target: Ref, model: type[AttachedT]) -> AttachedT | None:
    """What is attached to a target: the oldest of those that want to be."""
    found: list[AttachedT] = [claim for claim in view.find(index, target) if isinstance(claim, model)]
    return min(found, key=age, default=None)


def elsewhere(target: Ref, found: object, options: Options) -> bool:
    """Whether a target that is not to be `found` may be there all the same, for another release to serve and speak of.

    A selector is about InferenceServices and Inferences alone, so a Service that is not found is nowhere.
    """
    return found is Absent.MISSING and options.selective and target.kind != Service.KIND


def check(view: View, ref: Ref, options: Options) -> tuple[Finding, ...]:
    """What keeps a policy or gateway from being attached to its target."""
    index = POLICIES if ref.kind == TrafficPolicy.KIND else GATEWAYS
    model: type[Attached] = TrafficPolicy if index is POLICIES else ServiceGateway
    claim = view.get(ref, model)
    if isinstance(claim, Absent):
        return ()
    target, origin = target_of(claim), Origin(ref, "spec.targetRef")
    found = view.get(target, TARGETS[target.kind])
    if elsewhere(target, found, options):
        return ()
    if found is Absent.MISSING:
        return (Finding(origin, Reason.TARGET_NOT_FOUND, f"{target} not found"),)
    oldest = min(view.find(index, target), key=age)
    if oldest.ref == ref:
        return ()
    return (Finding(origin, Reason.CONFLICTED, f"{target} already has the older {oldest.ref}"),)
