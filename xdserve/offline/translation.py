"""Translation without serving: what Envoys would get for the objects of some files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from translator.planners.options import Options
from xdserve.offline.findings import Said, Severity, found
from xdserve.offline.planning import Plans, Sections, sections
from xdserve.offline.reading import read


@dataclass(frozen=True, slots=True)
class Translated:
    """Resources by gateway and section, as Envoy's own configuration has them, and what was found.

    ``missing`` says why there is nothing to print, or is empty.
    """

    resources: dict[str, Sections]
    said: list[Said]
    missing: str = ""

    @property
    def findings(self) -> list[str]:
        """One line for each finding, as `validate --strict` has them."""
        return [*map(str, self.said), *filter(None, [self.missing])]

    @property
    def well(self) -> bool:
        """Whether there is something to print, and no error."""
        return not self.missing and all(said.severity is not Severity.ERROR for said in self.said)


def translate(paths: Iterable[Path], gateway: str | None, options: Options) -> Translated:
    """Translate the objects of files and directories, all gateways or one."""
    files = read(paths).files
    plans = Plans.of(files, options)
    scopes = plans.scopes.scopes
    chosen = sorted(name for name in scopes if gateway in {None, name})
    resources = {name: sections(scopes[name]) for name in chosen}
    return Translated(resources, found(files, plans, strict=True), _missing(gateway, scopes))


def _missing(gateway: str | None, scopes: Collection[str]) -> str:
    if gateway is not None and gateway not in scopes:
        return f"--gateway: found {gateway}, allowed {', '.join(sorted(scopes)) or 'none: no target is here'}"
    return "" if scopes else "no InferenceService or Inference here, nor a Service that a TrafficPolicy is attached to"
