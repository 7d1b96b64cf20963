"""The objects that are read: a document in, a frozen model or a list of problems out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, TypeGuard

from pydantic import ValidationError

from translator.objects.base import problems_of
from translator.objects.core import ConfigMap, EndpointSlice, Service
from translator.objects.errors import NOT_YET, ObjectInvalid, Problem, in_one_line, show
from translator.objects.gateway import ServiceGateway
from translator.objects.grant import ReferenceGrant
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.policy import TrafficPolicy
from translator.objects.ref import DEFAULT_NAMESPACE, XDSERVE, Origin, Ref

__all__ = [
    "KINDS",
    "ConfigMap",
    "EndpointSlice",
    "Inference",
    "InferenceService",
    "Object",
    "ObjectInvalid",
    "Origin",
    "Problem",
    "Ref",
    "ReferenceGrant",
    "Service",
    "ServiceGateway",
    "TrafficPolicy",
    "identify",
    "in_one_line",
    "items_of",
    "parse",
]

Object: TypeAlias = (
    InferenceService | Inference | Service | EndpointSlice | ConfigMap | TrafficPolicy | ServiceGateway | ReferenceGrant
)

_MODELS: tuple[type[Object], ...] = (
    InferenceService,
    Inference,
    Service,
    EndpointSlice,
    ConfigMap,
    TrafficPolicy,
    ServiceGateway,
    ReferenceGrant,
)

# Every kind that is read: (group, version, kind) -> its model.
KINDS: dict[tuple[str, str, str], type[Object]] = {
    **{(m.GROUP, m.VERSION, m.KIND): m for m in _MODELS},
    **{
        (ReferenceGrant.GROUP, version, ReferenceGrant.KIND): ReferenceGrant
        for version in ReferenceGrant.OTHER_VERSIONS
    },
}
_VERSIONS: dict[tuple[str, str], list[str]] = {}
for _group, _version, _kind in KINDS:
    _VERSIONS.setdefault((_group, _kind), []).append(_version)
_LIST = "List"
_SPELLINGS = {(_group, name.lower()): name for _group, _kind in _VERSIONS for name in (_kind, _kind + _LIST)}

# Documented kinds of ours that are not built: reading over one would leave out what its author relies on.
_NOT_YET_KINDS = frozenset({"AccessPolicy"})


def identify(document: object) -> Ref | None:
    """Which object a document is about, of any kind and however wrong the rest of it; None if it does not say."""
    if not isinstance(document, Mapping):
        return None
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        return None
    version, kind, name = document.get("apiVersion"), document.get("kind"), metadata.get("name")
    namespace = metadata.get("namespace") or DEFAULT_NAMESPACE
    if not (_is_word(version) and _is_word(kind) and _is_word(name) and _is_word(namespace)):
        return None
    group = _group_of(version)
    return Ref(group, _SPELLINGS.get((group, kind.lower()), kind), namespace, name)


def items_of(document: object) -> list[object]:
    """The items of a list of objects; else the document itself.

    That is a List, as ``kubectl get -o yaml`` prints several objects, or one of a kind that is read, as the Kubernetes
    API gives it (an InferenceServiceList): there the API leaves out of the items what the list says of them all.
    """
    if not isinstance(document, Mapping) or not isinstance(items := document.get("items"), list):
        return [document]
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if kind == _LIST:
        return list(items)
    if not isinstance(api_version, str) or not isinstance(kind, str) or not kind.endswith(_LIST):
        return [document]
    group, _, version = api_version.rpartition("/")
    of_all = {"apiVersion": api_version, "kind": kind.removesuffix(_LIST)}
    if (group, version, of_all["kind"]) not in KINDS:
        return [document]
    return [{**of_all, **item} if isinstance(item, dict) else item for item in items]


def parse(document: object) -> Object | None:
    """The object of a document as YAML or JSON gives it; None for a kind that is not read here.

    Raises:
        ObjectInvalid: what is wrong, all of it at once.
    """
    model = _model_of(document)
    if model is None:
        return None
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ObjectInvalid(identify(document), problems_of(error, document)) from None


def _model_of(document: object) -> type[Object] | None:
    if not isinstance(document, Mapping):
        raise ObjectInvalid(None, (Problem("document", show(document), "a map"),))
    api_version, kind = document.get("apiVersion"), document.get("kind")
    for field, value in (("apiVersion", api_version), ("kind", kind)):
        if not isinstance(value, str) or not value:
            raise ObjectInvalid(None, (Problem(field, show(value), "a string"),))
    group, _, version = str(api_version).rpartition("/")
    model = KINDS.get((group, version, str(kind)))
    if model is None:
        _check_unread(document, group, str(kind))
    return model


def _check_unread(document: Mapping[str, object], group: str, kind: str) -> None:
    """A kind that is not read is passed over, unless its author must think that it is."""
    versions = _VERSIONS.get((group, kind)) or _VERSIONS.get((group, kind.removesuffix(_LIST)))
    spelling = _SPELLINGS.get((group, kind.lower()), kind)
    if spelling != kind:
        problem = Problem("kind", show(kind), spelling)
    elif versions and _is_read(document, kind.removesuffix(_LIST)):
        problem = Problem("items", show(document.get("items")), "a list")
    elif versions:
        allowed = ", ".join(f"{group}/{version}" if group else version for version in versions)
        problem = Problem("apiVersion", show(document["apiVersion"]), allowed)
    elif group == XDSERVE and kind in _NOT_YET_KINDS:
        problem = Problem("kind", show(kind), NOT_YET)
    elif group == XDSERVE:
        # A misspelt kind may be the edit of an object that is there: nobody can tell of which, so all stay.
        kinds = ", ".join(known for known_group, known in _VERSIONS if known_group == XDSERVE)
        raise ObjectInvalid(None, (Problem("kind", show(kind), kinds),))
    else:
        return
    raise ObjectInvalid(identify(document), (problem,))


def _is_read(document: Mapping[str, object], kind: str) -> bool:
    group, _, version = str(document["apiVersion"]).rpartition("/")
    return (group, version, kind) in KINDS


def _group_of(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def _is_word(value: object) -> TypeGuard[str]:
    """Whether a message can name it: printable, in one line and not endless."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 253
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )
