"""The golden cases: what a folder holds, what translation makes of it, and the text in which that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from translator.planners.options import Options
from xdserve.offline import plan_all
from xdserve.offline.planning import sections
from xdserve.offline.readable import readable
from xdserve.offline.reading import read
from xdserve.printing import SECTIONS

ROOT = Path(__file__).parent
INPUT, OPTIONS, FINDINGS = "in.yaml", "options.yaml", "findings.txt"
OUTPUTS = {section: f"{section}.yaml" for section in SECTIONS.values()}
GENERATED = frozenset({*OUTPUTS.values(), FINDINGS})

Gateways = Mapping[str, Mapping[str, list[dict[str, Any]]]]
"""Resources by gateway and section."""


def cases() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob(f"*/{INPUT}"))


def translated(*paths: Path, options: Options | None = None) -> tuple[Gateways, list[str]]:
    """The resources of every gateway, and a line for each finding, its reason first."""
    files = read(paths).files
    planned = plan_all(files, options or Options())
    gateways = {name: sections(scope) for name, scope in sorted(planned.scopes.items())}
    said = [f"{error.reason} {error}" for error in files.errors()]
    said += [f"{found.reason.value} {found}" for owner in sorted(planned.findings) for found in planned.findings[owner]]
    return gateways, said


def translate_case(name: str) -> tuple[Gateways, list[str]]:
    folder = ROOT / name
    gateways, findings = translated(folder / INPUT, options=_options(folder / OPTIONS))
    return gateways, [line.replace(f"{folder}/", "") for line in findings]


LOCAL_REPLIES = "local_reply_config"
SHOWN_IN = "plain"
"""The case that shows what all listeners have in common; the others name it."""


def texts(gateways: Gateways, findings: list[str]) -> dict[str, str]:
    """The files of a case, by name."""
    files = {
        file: readable({gateway: resources[section] for gateway, resources in gateways.items()})
        for section, file in OUTPUTS.items()
    }
    return {**files, FINDINGS: "".join(f"{line}\n" for line in findings)}


@cache
def _local_replies() -> object:
    gateways, _ = translate_case(SHOWN_IN)
    return next(_managers(gateways))[LOCAL_REPLIES]


def _managers(gateways: Gateways) -> Iterator[dict[str, Any]]:
    for resources in gateways.values():
        for listener in resources["listeners"]:
            for chain in listener["filter_chains"]:
                yield from (found["typed_config"] for found in chain["filters"])


def shortened(gateways: Gateways) -> Gateways:
    """Without the 400 lines that are the same in every listener."""
    short = deepcopy(gateways)
    for manager in _managers(short):
        if manager[LOCAL_REPLIES] == _local_replies():
            manager[LOCAL_REPLIES] = f"as in {SHOWN_IN}/listeners.yaml"
    return short


def _options(path: Path) -> Options:
    said = yaml.safe_load(path.read_text()) if path.exists() else {}
    if "allowed_hosts" in said:
        said["allowed_hosts"] = {namespace: tuple(hosts) for namespace, hosts in said["allowed_hosts"].items()}
    return Options(**said)
