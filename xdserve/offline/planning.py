"""Objects of files planned into scopes that nobody is connected to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from translator.objects.ref import Ref
from translator.plan import Finding
from translator.planners.options import Options
from xds.scope import Scope
from xds.types import ResourceType
from xds.wire import Resource
from xdserve.pipeline import Pipeline
from xdserve.printing import SECTIONS, printable
from xdserve.sources import Broken, Change, Put
from xdserve.sources.files import Files

logger = structlog.get_logger("xdserve.offline")

Sections = dict[str, list[dict[str, Any]]]
"""The resources of a gateway by section, as Envoy's own configuration has them."""


@dataclass(slots=True)
class Scopes:
    """Publishes into scopes; remembers what planning found. ``envoys`` is how many a gateway is taken to have."""

    scopes: dict[str, Scope] = field(default_factory=dict)
    findings: dict[Ref, Sequence[Finding]] = field(default_factory=dict)
    envoys: int = 0

    def publish(self, gateway: str, put: Iterable[Resource], remove: Iterable[tuple[ResourceType, str]] = ()) -> object:
        """Change what a gateway is to have."""
        return self.scopes.setdefault(gateway, Scope(gateway)).update(put, remove)

    def retains(self, _: str, __: str) -> bool:
        """No Envoy ever acknowledged anything."""
        return False

    def refresh(self, _: str, __: Resource) -> None:
        """Nothing is retained."""

    def forget(self, gateway: str) -> None:
        """A gateway is no more."""
        self.scopes.pop(gateway, None)

    def connected(self, _: str) -> int:
        """The same for all."""
        return self.envoys

    def found(self, owner: Ref, findings: Sequence[Finding]) -> None:
        """Remember what is wrong."""
        self.findings[owner] = findings

    def failed(self, service: Ref, error: Exception) -> None:
        """Say the cause, beside the finding that stands for it."""
        logger.error("planning failed", service=str(service), error=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class Plans:
    """A pipeline that has nothing left to do, and where it has published."""

    pipeline: Pipeline
    scopes: Scopes
    options: Options

    @classmethod
    def of(cls, files: Files, options: Options, *, context: Files | None = None, envoys: int = 0) -> Plans:
        """Plan everything that files say, and that ``context`` says of objects that they do not name."""
        scopes = Scopes(envoys=envoys)
        plans = cls(Pipeline(options, scopes, scopes), scopes, options)
        plans.apply(_changes(files))
        if context is not None:
            plans.apply(_beside(files, context))
        return plans

    def apply(self, changes: Iterable[Change]) -> None:
        """Take changes in, and plan what they touch."""
        self.pipeline.apply(list(changes))
        while self.pipeline.run():
            pass


def plan_all(files: Files, options: Options) -> Scopes:
    """Plan everything that files say."""
    return Plans.of(files, options).scopes


def sections(scope: Scope) -> Sections:
    """All resources of a gateway."""
    return {
        section: [printable(held) for name in sorted(scope.names(kind)) if (held := scope.get(kind, name))]
        for kind, section in SECTIONS.items()
    }


def _beside(files: Files, context: Files) -> Iterator[Change]:
    for change in _changes(context):
        if isinstance(change, Put) and files.source(change.object.ref) is None:
            yield change


def _changes(files: Files) -> Iterator[Change]:
    """What a source that has just begun would feed."""
    good = set()
    for found in files.objects():
        if source := files.source(found.ref):
            good.add(found.ref)
            yield Put(found, source)
    for error in files.errors():
        if error.object is not None and error.object not in good:
            yield Broken(error.object, (), error.source)
