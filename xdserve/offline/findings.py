"""What is not as its author wants it, and how bad that is for files that no cluster has seen yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from translator.objects.core import Service
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.ref import CORE, Ref
from translator.plan import CONDITION_OF, Finding, Reason
from translator.planners import kserve, kubedl, plan
from translator.planners.endpoints import SERVICE_STATE, PortOf
from translator.planners.indexes import SLICES
from translator.planners.options import Options
from translator.view import OBJECT, Absent, View
from xdserve.ledger import Entry, Place, entry
from xdserve.offline.planning import Plans
from xdserve.sources.files import Files

READINESS = frozenset({Reason.BACKEND_NOT_FOUND, Reason.BACKEND_NOT_READY})


class Severity(StrEnum):
    """An error fails a check, a warning is about what has no effect.

    A note is about what only a cluster can know, or about an object of a kind that is not read.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Said(NamedTuple):
    """A finding and how bad it is."""

    severity: Severity
    entry: Entry

    def __str__(self) -> str:
        """``warning: iris.yaml document 2: InferenceService models/iris: spec.canary: has no effect: ...``."""
        return ("" if self.severity is Severity.ERROR else f"{self.severity}: ") + line(self.entry)


def line(said: Entry) -> str:
    """An entry in one line: file, document, object, field, message."""
    place = said.place
    where = "" if place is None else f"{place.file} document {place.document}" if place.document else place.file
    return ": ".join(filter(None, (where, str(said.object or ""), said.field, said.message)))


def found(files: Files, plans: Plans, *, strict: bool = False) -> list[Said]:
    """All findings, of reading and of planning: errors, warnings, notes, each by file and document."""
    said = {Said(Severity.ERROR, each) for each in _of_reading(files)}
    said |= {Said(Severity.NOTE, each) for each in _not_read(files)}
    for owner, findings in plans.scopes.findings.items():
        unknown = frozenset[Finding]() if strict else unknowable(plans, owner, findings)
        said |= {Said(_severity(each, unknown), _placed(each, files)) for each in findings}
    return in_order(said)


def _placed(finding: Finding, files: Files) -> Entry:
    return entry(finding)._replace(place=place(files, finding.origin.object))


def in_order(said: Iterable[Said]) -> list[Said]:
    """The one order in which findings are told."""
    return sorted(said, key=_order)


def place(files: Files, ref: Ref) -> Place | None:
    """Where an object is written."""
    source = files.source(ref)
    return Place(*source) if source else None


def _of_reading(files: Files) -> Iterator[Entry]:
    for error in files.errors():
        yield Entry(Place(*error.source), error.object, error.field, error.reason, error.message)


def _not_read(files: Files) -> Iterator[Entry]:
    for note in files.notes():
        yield Entry(Place(*note.source), note.object, note.field, Reason.FIELD_IGNORED.value, note.message)


def _severity(finding: Finding, unknown: frozenset[Finding]) -> Severity:
    if CONDITION_OF[finding.reason] is None or finding.reason is Reason.UNSUPPORTED_MODE:
        return Severity.WARNING
    return Severity.NOTE if finding in unknown else Severity.ERROR


def _order(said: Said) -> tuple[object, ...]:
    told = said.entry
    return (
        list(Severity).index(said.severity),
        told.place or Place("", 0),
        str(told.object or ""),
        _natural(told.field),
        told.message,
    )


def _natural(path: str) -> list[tuple[int, str]]:
    """``spec.split[10]`` after ``spec.split[9]``."""
    return [(int(word), "") if word.isdigit() else (0, word) for word in path.replace("]", "[").split("[")]


# -- What only a cluster can know ----------------------------------------------------------------------------------


def unknowable(plans: Plans, owner: Ref, findings: Iterable[Finding]) -> frozenset[Finding]:
    """The findings about Services and endpoints of which nothing is here, as controllers make them in the cluster.

    A Service is missing only where others of the same object are here; it has no endpoints only where EndpointSlices
    of the same object are here: then the files are a picture of a cluster, or stand for one. Services that a policy
    names by itself stand together with all those of its target. A ConfigMap with a CA is most often made there.
    """
    findings = tuple(findings)
    config_maps = frozenset(filter(_no_config_map, findings))
    about = [finding for finding in findings if finding.reason in READINESS]
    if not about:
        return config_maps
    services = _Services.of(plans, owner)
    return config_maps | frozenset(finding for finding in about if services.unknown(finding))


def _no_config_map(finding: Finding) -> bool:
    """Whether a CA is in a ConfigMap that is not here: the cluster may have it, as OpenShift makes them."""
    return finding.reason is Reason.INVALID_CA_CERTIFICATE_REF and " not found: " in finding.message


@dataclass(frozen=True, slots=True)
class _Services:
    """The Services that a target's plan reads; ``made`` are those of one object, as its controller makes them."""

    view: View
    read: frozenset[Ref]
    made: tuple[frozenset[Ref], ...]

    @classmethod
    def of(cls, plans: Plans, owner: Ref) -> _Services:
        view = View(plans.pipeline.objects)
        unit = plans.pipeline.units.get(owner)
        plan(view, owner, plans.options, unit.planned.accepted if unit else None)
        read = _services(argument for name, argument in view.reads if name == SERVICE_STATE.name)
        refs = sorted(argument for name, argument in view.reads if name == OBJECT and isinstance(argument, Ref))
        made = [_made_for(view, ref, plans.options) for ref in refs]
        return cls(view, read, tuple(made))

    def unknown(self, finding: Finding) -> bool:
        ref = next((each for each in self.read if _names(finding, each)), None)
        if ref is None:  # an InferenceService or Inference, or a part of one: its author writes it
            return False
        group = next((each for each in self.made if ref in each), self.read)
        if finding.reason is Reason.BACKEND_NOT_FOUND:
            return all(self.view.get(each, Service) is Absent.MISSING for each in group)
        return not any(self.view.find(SLICES, (each.namespace, each.name)) for each in group)


def _made_for(view: View, ref: Ref, options: Options) -> frozenset[Ref]:
    """The Services that a controller makes for an object."""
    if ref.kind == InferenceService.KIND and isinstance(service := view.get(ref, InferenceService), InferenceService):
        return _services(each.port for each in kserve.target(view, service, options).candidates.values())
    if ref.kind == Inference.KIND and isinstance(inference := view.get(ref, Inference), Inference):
        whole = Ref(CORE, Service.KIND, ref.namespace, ref.name)
        return _services(each.port for each in kubedl.target(view, inference, options).candidates.values()) | {whole}
    return frozenset()


def _services(ports: Iterable[object]) -> frozenset[Ref]:
    return frozenset(port.ref for port in ports if isinstance(port, PortOf))


def _names(finding: Finding, service: Ref) -> bool:
    """Whether a finding is about this Service: planning says it in words alone."""
    return finding.message.startswith(f"{service} ") or f"({service}) " in finding.message
