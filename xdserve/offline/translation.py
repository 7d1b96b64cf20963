"""Translation without serving: what Envoys would get for the objects of some files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from translator.plan import CONDITION_OF, Finding
from translator.planners.options import Options
from xdserve.offline.planning import Sections, plan_all, sections
from xdserve.offline.reading import read

WARNING = "warning: "


@dataclass(frozen=True, slots=True)
class Translated:
    """Resources by gateway and section, as Envoy's own configuration has them, and one line for each finding."""

    resources: dict[str, Sections]
    findings: list[str]

    @property
    def well(self) -> bool:
        """Whether nothing was found but warnings."""
        return all(finding.startswith(WARNING) for finding in self.findings)


def translate(paths: Iterable[Path], gateway: str | None, options: Options) -> Translated:
    """Translate the objects of files and directories, all gateways or one."""
    files = read(paths).files
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
    return Translated({name: sections(scopes.scopes[name]) for name in chosen}, findings)


def _line(finding: Finding) -> str:
    return f"{WARNING if CONDITION_OF[finding.reason] is None else ''}{finding}"
