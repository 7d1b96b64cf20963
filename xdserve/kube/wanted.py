"""Which targets are to have a gateway of their own, and whether what the cluster has is what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from bootstrap.manifests import CONFIG_CONTENT, CONTENT, Manifest, Owner
from translator.objects import Inference, InferenceService, Service, ServiceGateway
from translator.objects.ref import Ref
from translator.plan import GatewayPlan
from xdserve.kube.deployments import troubles
from xdserve.settings import Provision

ANNOTATION = "xdserve.io/gateway"
"""On a target: ``"true"`` or ``"false"``, whatever the setting says."""

_METADATA = (
    *("name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp"),
    *("labels", "annotations", "ownerReferences"),
)
_PROGRESS = ("observedGeneration", "replicas", "updatedReplicas", "availableReplicas")

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


def essence(document: Found) -> dict[str, Any]:
    """Of an object what is compared: its managed fields alone would be as large as all the rest."""
    metadata, status = document["metadata"], document.get("status") or {}
    kept = {name: document[name] for name in document.keys() - {"metadata", "status"}}
    kept["metadata"] = {name: metadata[name] for name in _METADATA if name in metadata}
    told = {"conditions": found} if (found := troubles(document)) else {}
    return kept | {"status": {name: status[name] for name in _PROGRESS if name in status} | told}


def ending(found: Found) -> bool:
    """Whether an object is being deleted: it is there until its finalizers are done, and then no more."""
    return bool(found["metadata"].get("deletionTimestamp"))


def version(found: Found) -> str:
    """What tells one state of an object from another."""
    return str(found["metadata"].get("resourceVersion", ""))


def same(wanted: Manifest, found: Found) -> bool:
    """Whether an object of the cluster has all that is wanted, and stays; what others add does not count."""
    return not ending(found) and _has(possible(wanted, found), found)


def possible(wanted: Manifest, found: Found) -> Manifest:
    """As much of a manifest as what is there can become: the first IP family of a Service stays as long as it lives."""
    mine, theirs = ((one.get("spec") or {}).get("ipFamilies") for one in (wanted, found))
    if not mine or not theirs or mine[0] == theirs[0]:
        return wanted
    kept = {name: found["spec"][name] for name in ("ipFamilies", "ipFamilyPolicy") if name in found["spec"]}
    return wanted | {"spec": wanted["spec"] | kept}


def rolls(wanted: Manifest, found: Found) -> bool:
    """Whether to apply a Deployment replaces the pods of what there is."""
    return not _has(wanted["spec"]["template"], found["spec"]["template"])


def content(manifest: Manifest) -> str:
    """What stands for a manifest: all of it would be tens of kilobytes a gateway."""
    return " ".join(manifest["metadata"]["annotations"].values())


def rolled(found: Found) -> bool:
    """Whether a Deployment's pods are all of its newest kind, and available; as ``kubectl rollout status`` has it."""
    status = found.get("status") or {}
    updated = status.get("updatedReplicas", 0)
    current = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    all_new = updated >= found["spec"].get("replicas", 1) and status.get("replicas", 0) <= updated
    return bool(current and all_new and updated <= status.get("availableReplicas", 0))


def rolling(found: Found) -> bool:
    """Whether pods of a former kind still run beside those of a Deployment's newest."""
    status = found.get("status") or {}
    return bool(status.get("replicas", 0) > status.get("updatedReplicas", 0))


def ours(wanted: Manifest, found: Found) -> bool:
    """Whether we have made an object, be it for another target of the same name."""
    mine, theirs = wanted["metadata"]["labels"], found["metadata"].get("labels") or {}
    kept = [f"app.kubernetes.io/{name}" for name in ("managed-by", "component", "part-of")]
    return all(mine[name] == theirs.get(name) for name in kept)


def tells_of(deployment: Found | None, config: Manifest) -> bool:
    """Whether a Deployment says that its ConfigMap has been applied as it is wanted."""
    annotations = (deployment or {"metadata": {}})["metadata"].get("annotations") or {}
    return bool(annotations.get(CONFIG_CONTENT) == config["metadata"]["annotations"][CONTENT])


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
