"""What is to be sent to the apiserver so that an object's status says what is to be said. Pure.

Our own kinds get their status by server-side apply. KServe's list `status.conditions` has no keys: whoever applies one
entry owns the whole list. So ours is merged into the list that was read, bound to its resourceVersion: a list that has
changed meanwhile is refused (409), never overwritten. KubeDL's Inference has no conditions; see `keeps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from translator.objects.ref import KSERVE, KUBEDL, XDSERVE, Ref
from xdserve.conditions import GATEWAY_PROGRAMMED, Verdict, conditions, policy_status, with_condition
from xdserve.kube.calls import APPLY, MERGE

FIELD_MANAGER = "xdserve-status"

PATHS = {
    "InferenceService": (KSERVE, "v1beta1", "inferenceservices"),
    "Inference": (KUBEDL, "v1alpha1", "inferences"),
    "TrafficPolicy": (XDSERVE, "v1alpha1", "trafficpolicies"),
    "ServiceGateway": (XDSERVE, "v1alpha1", "servicegateways"),
}
"""Group, version and resource of the kinds whose status is written."""


_KEPT_OF_STATUS = ("conditions", "ancestors", "observedGeneration")


class Patch(NamedTuple):
    """A request that changes the status subresource."""

    path: str
    query: dict[str, str]
    content_type: str
    body: dict[str, Any]


def path_of(ref: Ref) -> str:
    """Where an object is."""
    group, version, resource = PATHS[ref.kind]
    return f"/apis/{group}/{version}/namespaces/{ref.namespace}/{resource}/{ref.name}"


def own(ref: Ref) -> bool:
    """Whether the kind is ours, so that its whole status is."""
    return ref.group == XDSERVE


def target_of(ref: Ref, document: Mapping[str, Any]) -> Ref | None:
    """What a policy or ServiceGateway targets by its own words, also one that nobody could read; None without any."""
    named = (document.get("spec") or {}).get("targetRef") or {}
    if not own(ref) or not {"group", "kind", "name"} <= named.keys():
        return None
    return Ref(str(named["group"]), str(named["kind"]), ref.namespace, str(named["name"]))


def patch(
    ref: Ref, document: Mapping[str, Any], verdicts: Sequence[Verdict], now: datetime, *, silent: bool = False
) -> Patch | None:
    """What makes the status say so; None if it does.

    Args:
        ref: which object.
        document: the object as it was read.
        verdicts: what is to be said.
        now: for conditions that change.
        silent: whether what was said of a gateway on an object of others is to be taken back.
    """
    if own(ref):
        return _applied(ref, document, verdicts, now)
    return _taken_back(ref, document) if silent else _merged(ref, document, verdicts, now)


def keeps(ref: Ref, answer: Mapping[str, Any]) -> bool:
    """Whether an answer to a patch has what was written: the apiserver drops fields that a CRD does not know."""
    return own(ref) or present(answer) is not None


def present(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The condition of ours that an object of others has."""
    return next((one for one in _listed(document) if one.get("type") == GATEWAY_PROGRAMMED), None)


def before(ref: Ref, document: Mapping[str, Any]) -> list[Verdict] | None:
    """What the status says now; None if nothing of ours."""
    found = _ours(ref, document)
    return [Verdict(*(str(one.get(key, "")) for key in Verdict._fields)) for one in found] if found else None


def _ours(ref: Ref, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if not own(ref):
        found = present(document)
        return [found] if found else []
    status = document.get("status") or {}
    ancestors = status.get("ancestors") or ()
    return [*(status.get("conditions") or ()), *(one for entry in ancestors for one in entry.get("conditions") or ())]


def _applied(ref: Ref, document: Mapping[str, Any], verdicts: Sequence[Verdict], now: datetime) -> Patch | None:
    status, generation = document.get("status") or {}, document["metadata"].get("generation", 0)
    if ref.kind == "TrafficPolicy":
        wanted = policy_status(status, _ancestor(document), verdicts, generation, now)
    else:
        wanted = {"conditions": conditions(status.get("conditions") or (), verdicts, generation, now)}
    if all(status.get(field) == value for field, value in wanted.items()):
        return None
    group, version, _ = PATHS[ref.kind]
    metadata = {"name": ref.name, "namespace": ref.namespace, "resourceVersion": _version(document)}
    body = {"apiVersion": f"{group}/{version}", "kind": ref.kind, "metadata": metadata, "status": wanted}
    return Patch(path_of(ref) + "/status", {"fieldManager": FIELD_MANAGER, "force": "true"}, APPLY, body)


def _merged(ref: Ref, document: Mapping[str, Any], verdicts: Sequence[Verdict], now: datetime) -> Patch | None:
    found = next((one for one in verdicts if one.type == GATEWAY_PROGRAMMED), None)
    listed = _listed(document)
    if found is None or (wanted := with_condition(listed, found, now)) == list(listed):
        return None
    return _listing(ref, document, wanted)


def _taken_back(ref: Ref, document: Mapping[str, Any]) -> Patch | None:
    others = [one for one in _listed(document) if one.get("type") != GATEWAY_PROGRAMMED]
    return None if others == list(_listed(document)) else _listing(ref, document, others)


def _listing(ref: Ref, document: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]) -> Patch:
    body = {"metadata": {"resourceVersion": _version(document)}, "status": {"conditions": wanted}}
    return Patch(path_of(ref) + "/status", {"fieldManager": FIELD_MANAGER}, MERGE, body)


def _ancestor(document: Mapping[str, Any]) -> dict[str, Any]:
    """The target as the policy names it, with its namespace: also of a policy that nobody could read."""
    target = document["spec"].get("targetRef") or {}
    named = {key: str(target[key]) for key in ("group", "kind", "name") if key in target}
    return {**named, "namespace": document["metadata"]["namespace"]}


def _listed(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (document.get("status") or {}).get("conditions") or ()


def _version(document: Mapping[str, Any]) -> str:
    return str(document["metadata"]["resourceVersion"])


def essence(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a source is to keep of a document, for `patch`: who it is, what its status says, what a policy targets."""
    metadata, status, spec = (_fields(document.get(name)) for name in ("metadata", "status", "spec"))
    kept = ("name", "namespace", "uid", "resourceVersion", "generation")
    return {
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {key: spec[key] for key in ("targetRef",) if key in spec},
        "status": {key: status[key] for key in _KEPT_OF_STATUS if key in status},
    }


def _fields(found: object) -> Mapping[str, Any]:
    """Those of an object; where something else is, as a CRD without a schema allows, there are none."""
    return found if isinstance(found, Mapping) else {}
