"""Which targets are to have a gateway of their own, and whether what the cluster has is what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from bootstrap.manifests import Manifest, Owner
from translator.objects import Inference, InferenceService, Service, ServiceGateway
from translator.objects.ref import Ref
from translator.plan import GatewayPlan
from xdserve.settings import Provision

ANNOTATION = "xdserve.io/gateway"
"""On a target: ``"true"`` or ``"false"``, whatever the setting says."""

Found: TypeAlias = Mapping[str, Any]
Target: TypeAlias = InferenceService | Inference | Service


class Wanted(NamedTuple):
    """A gateway that there is to be."""

    owner: Owner
    gateway: GatewayPlan


def wants(mode: Provision, annotations: Mapping[str, str], gateway: GatewayPlan | None) -> bool:
    """Whether a target gets a gateway: by its annotation, else by a ServiceGateway on it, else by the setting.

    ``gateway`` is None for one that cannot be planned.
    """
    said = annotations.get(ANNOTATION, "")
    if mode is Provision.OFF or said == "false":
        return False
    attached = gateway is not None and gateway.origin.object.kind == ServiceGateway.KIND
    return mode is Provision.OPT_OUT or said == "true" or attached


def wanted(target: Target, uid: str, gateway: GatewayPlan, mode: Provision) -> Wanted | None:
    """The gateway that a target is to have, by its own words and its plan; None for none.

    ``uid`` is that of the object as the apiserver has it; without one there is nothing to own a gateway.
    """
    if not uid or not wants(mode, target.metadata.annotations, gateway):
        return None
    return Wanted(Owner(target.ref, target.VERSION, uid), gateway)


def key(manifest: Found) -> tuple[str, str, str]:
    """What an object is called: kind, namespace and name."""
    return manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def title(manifest: Found) -> str:
    """``Deployment models/iris-gateway``."""
    kind, namespace, name = key(manifest)
    return f"{kind} {namespace}/{name}"


def same(wanted: Manifest, found: Found) -> bool:
    """Whether an object of the cluster has all that is wanted; what others or defaults add does not count."""
    return _has(wanted, found)


def ours(wanted: Manifest, found: Found) -> bool:
    """Whether we have made an object, be it for another target of the same name."""
    mine, theirs = wanted["metadata"]["labels"], found["metadata"].get("labels") or {}
    kept = [f"app.kubernetes.io/{name}" for name in ("managed-by", "component", "part-of")]
    return all(mine[name] == theirs.get(name) for name in kept)


def leads_elsewhere(wanted: Manifest, found: Found) -> bool:
    """Whether an object is a Service that leads to another port of its pods than is wanted."""
    return found["kind"] == "Service" and _target_ports(wanted) != _target_ports(found)


def target_of(found: Found) -> Ref | None:
    """The target that an object is of, by its owner reference."""
    metadata = found["metadata"]
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            group = owner["apiVersion"].rpartition("/")[0]
            return Ref(group, owner["kind"], metadata["namespace"], owner["name"])
    return None


def _target_ports(service: Found) -> list[object]:
    return [port.get("targetPort") for port in service["spec"].get("ports") or ()]


def _has(wanted: object, found: object) -> bool:
    match wanted:
        case Mapping():
            return isinstance(found, Mapping) and all(_has(value, found.get(name)) for name, value in wanted.items())
        case str():
            return wanted == found
        case Sequence():
            if not isinstance(found, Sequence) or len(found) != len(wanted):
                return False
            return all(_has(one, other) for one, other in zip(wanted, found, strict=True))
    # The apiserver leaves out what is false in a boolean that defaults to it.
    return wanted == found or (wanted is False and found is None)
