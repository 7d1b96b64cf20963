"""Translation without serving: what Envoys would get for the objects of some files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from translator.objects.ref import Ref
from translator.plan import Finding, Reason
from translator.planners.options import Options
from xds.scope import Scope
from xds.types import ResourceType
from xds.wire import Resource
from xdserve.pipeline import Pipeline
from xdserve.printing import SECTIONS, printable
from xdserve.sources import Put
from xdserve.sources.directory import SourceUnavailable, snapshot
from xdserve.sources.files import Files

logger = structlog.get_logger("xdserve.offline")

WARNING = "warning: "

Resources = dict[str, dict[str, list[dict[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Translated:
    """Resources by gateway and section, as Envoy's own configuration has them, and one line for each finding."""

    resources: Resources
    findings: list[str]


@dataclass(slots=True)
class Scopes:
    """Publishes into scopes that nobody is connected to; remembers what planning found."""

    scopes: dict[str, Scope] = field(default_factory=dict)
    findings: dict[Ref, Sequence[Finding]] = field(default_factory=dict)

    def publish(self, gateway: str, put: Iterable[Resource], remove: Iterable[tuple[ResourceType, str]] = ()) -> object:
        """Change what a gateway is to have."""
        return self.scopes.setdefault(gateway, Scope(gateway)).update(put, remove)

    def forget(self, gateway: str) -> None:
        """A gateway is no more."""
        self.scopes.pop(gateway, None)

    def connected(self, _: str) -> int:
        """Nobody ever is."""
        return 0

    def found(self, owner: Ref, findings: Sequence[Finding]) -> None:
        """Remember what is wrong."""
        self.findings[owner] = findings

    def failed(self, service: Ref, error: Exception) -> None:
        """Say the cause, beside the finding that stands for it."""
        logger.error("planning failed", service=str(service), error=f"{type(error).__name__}: {error}")


def translate(paths: Iterable[Path], gateway: str | None, options: Options) -> Translated:
    """Translate the objects of files and directories, all gateways or one."""
    try:
        files = snapshot(*paths)
    except SourceUnavailable as error:
        return Translated({}, [str(error)])
    scopes = plan_all(files, options)
    chosen = sorted(name for name in scopes.scopes if gateway in {None, name})
    findings = [str(error) for error in files.errors()]
    findings += [_line(found) for said in scopes.findings.values() for found in said]
    if gateway is not None and not chosen:
        findings.append(
            f"--gateway: found {gateway}, allowed {', '.join(sorted(scopes.scopes)) or 'none: no target is here'}"
        )
    elif not scopes.scopes:
        findings.append("no InferenceService or Inference here, nor a Service that a TrafficPolicy is attached to")
    return Translated({name: _sections(scopes.scopes[name]) for name in chosen}, findings)


def plan_all(files: Files, options: Options) -> Scopes:
    """Plan everything that files say."""
    scopes = Scopes()
    pipeline = Pipeline(options, scopes, scopes)
    pipeline.apply([Put(found, source) for found in files.objects() if (source := files.source(found.ref))])
    while pipeline.run():
        pass
    return scopes


def _sections(scope: Scope) -> dict[str, list[dict[str, Any]]]:
    return {
        section: [printable(held) for name in sorted(scope.names(kind)) if (held := scope.get(kind, name))]
        for kind, section in SECTIONS.items()
    }


def _line(finding: Finding) -> str:
    return f"{WARNING if finding.reason is Reason.FIELD_IGNORED else ''}{finding}"
