"""`xdserve validate`: all that is wrong with some files, at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from translator import names
from translator.objects.ref import Origin
from translator.planners.options import Options
from xds.scope import Scope
from xds.types import ResourceType
from xdserve.ledger import Entry
from xdserve.offline.envoy import Refusal, refusals
from xdserve.offline.findings import Said, Severity, found, in_order, place
from xdserve.offline.planning import Plans, Sections, sections
from xdserve.offline.reading import read
from xdserve.offline.static import Where
from xdserve.printing import SECTIONS
from xdserve.sources.files import Files

REJECTED = "Rejected"
"""The reason of what Envoy refuses, as in the condition Programmed."""

_KINDS = {section: kind for kind, section in SECTIONS.items()}
_STICKY = "-sticky"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to check.

    ``context`` is there too and not asked about; ``strict`` takes what only a cluster can know for errors; ``envoy``
    is the binary that is to check everything that translation gives.
    """

    paths: tuple[Path, ...]
    context: tuple[Path, ...] = ()
    options: Options
    strict: bool = False
    envoy: Path | None = None


@dataclass(frozen=True, slots=True)
class Validated:
    """What was found, the worst first, in how many files, objects and gateways."""

    said: list[Said]
    files: int
    objects: int
    gateways: int

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(said.severity is severity for said in self.said)


def validate(request: Request) -> Validated:
    """Read, plan and check.

    Raises:
        NotAnEnvoyError: the binary that is to check cannot.
    """
    texts = read(request.paths, request.context)
    files = texts.files
    plans = Plans.of(files, request.options, context=texts.context)
    said = found(files, plans, strict=request.strict)
    if request.envoy is not None:
        said = in_order({*said, *_refused(request.envoy, files, plans)})
    # What is said of the context is not asked about.
    said = [each for each in said if each.entry.object is None or each.entry.place is not None]
    return Validated(said, texts.number, sum(1 for _ in files.objects()), len(plans.scopes.scopes))


class _Sections(Mapping[str, Sections]):
    """The resources of gateways as plain data, made when they are looked up: they are many times their bytes."""

    def __init__(self, scopes: Mapping[str, Scope]) -> None:
        self._scopes = scopes

    def __getitem__(self, gateway: str) -> Sections:
        return sections(self._scopes[gateway])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._scopes))

    def __len__(self) -> int:
        return len(self._scopes)


def _refused(binary: Path, files: Files, plans: Plans) -> Iterator[Said]:
    for refusal in refusals(binary, _Sections(plans.scopes.scopes)):
        origin = origin_of(plans, refusal.where)
        at = place(files, origin.object)
        yield Said(Severity.ERROR, Entry(at, origin.object, origin.field, REJECTED, _message(refusal)))


def _message(refusal: Refusal) -> str:
    """``Envoy refuses route testers of routes models/iris, gateway models/iris: missing ): (``."""
    gateway, section, name, route = refusal.where
    what = f"gateway {gateway}"
    if section:
        what = f"{section} {name}, {what}"
    if route:
        what = f"route {route[1]} of host {route[0]}, {what}"
    return f"Envoy refuses {what}: {refusal.words}"


def origin_of(plans: Plans, where: Where) -> Origin:
    """The object and field that made what Envoy refuses."""
    target = plans.pipeline.owners[where.gateway]
    if where.route is not None and (origin := _of_route(plans, where)):
        return origin
    scope = plans.scopes.scopes[where.gateway]
    # The routes are a gateway's whole meaning: what is wrong with it as a whole is most likely there.
    kind, name = _KINDS.get(where.section, ResourceType.ROUTE), where.name or names.route_configuration(target)
    held = scope.get(kind, name)
    return held.origin if held and isinstance(held.origin, Origin) else Origin(target, "spec")


def _of_route(plans: Plans, where: Where) -> Origin | None:
    unit = plans.pipeline.units[plans.pipeline.owners[where.gateway]]
    hosts = unit.planned.service.hosts if unit.planned.service else ()
    known = {(host.name, route.name): route.origin for host in hosts for route in host.routes}
    host, route = where.route or ("", "")
    return known.get((host, route)) or known.get((host, route.removesuffix(_STICKY)))
