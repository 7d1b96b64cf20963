"""What the demo shows: steps as they run, a table at the end, and all figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xdserve.demo import statistics
from xdserve.demo.driver import Tally

_BAR_WIDTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One promise: what was expected, what was seen, and whether it held.

    `wanted` and `counts` are by variant: a share of 0..1, and answers; `failed` of all `requests` failed.
    `detail` is what is too long for the table.
    """

    name: str
    expected: str
    seen: str
    held: bool
    requests: int
    failed: int
    wanted: Mapping[str, float]
    counts: Mapping[str, int]
    edit_to_answer_ms: Mapping[str, Any] | None = None
    detail: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The step for the report, with observed shares and the interval of each at 1e-6."""
        total = sum(self.counts.values())
        result = {
            "name": self.name,
            "expected": self.expected,
            "seen": self.seen,
            "held": self.held,
            "requests": self.requests,
            "failed": self.failed,
            "wanted": dict(self.wanted),
            "observed": {name: round(count / total, 6) for name, count in self.counts.items()},
            "counts": dict(self.counts),
            "interval": {
                name: [round(end, 6) for end in ends] for name, ends in statistics.intervals(self.counts).items()
            },
        }
        if self.edit_to_answer_ms is not None:
            result["edit_to_answer_ms"] = dict(self.edit_to_answer_ms)
        return result | dict(self.figures)


class Reporter(Protocol):
    """Who is told what happens."""

    def begin(self, title: str, wanted: Mapping[str, float], tally: Tally, /) -> None:
        """A step runs; `tally` fills while it does."""

    def done(self, step: Step) -> None:
        """A step is over."""


class PlainReporter:
    """A line when a step begins and one when it is over."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, title: str, wanted: Mapping[str, float], _tally: Tally, /) -> None:
        """Say what is being done."""
        split = f" (wanted: {percent(wanted)})" if wanted else ""
        self._console.print(f"... {title}{split}", markup=False, highlight=False, soft_wrap=True)

    def done(self, step: Step) -> None:
        """Say how it went."""
        verdict = "ok " if step.held else "NOT"
        detail = f"; {step.detail}" if step.detail else ""
        self._console.print(
            f"{verdict} {step.name}: {step.seen}{detail}", markup=False, highlight=False, soft_wrap=True
        )


class LiveReporter:
    """Bars of the wanted and the observed split, drawn again a few times a second; finished steps stay above."""

    def __init__(self, console: Console) -> None:
        self._title = "starting"
        self._wanted: Mapping[str, float] = {}
        self._tally = Tally()
        self._lines = PlainReporter(console)
        self.live = Live(console=console, get_renderable=self._draw, refresh_per_second=5, transient=True)

    def begin(self, title: str, wanted: Mapping[str, float], tally: Tally, /) -> None:
        """Draw this step from now on."""
        self._title, self._wanted, self._tally = title, wanted, tally

    def done(self, step: Step) -> None:
        """Leave the step's line above the bars."""
        self._lines.done(step)

    def _draw(self) -> RenderableType:
        shares = self._tally.shares()
        bars = Table.grid(padding=(0, 2))
        for name in sorted({*self._wanted, *shares}):
            if self._wanted:
                bars.add_row(name, "wanted", *_bar(self._wanted.get(name, 0.0), "blue"))
            bars.add_row(name, "seen", *_bar(shares.get(name, 0.0), "green"))
        figures = Text(f"{self._tally.total} requests, {self._tally.failed} failed", style="dim")
        return Group(Text(self._title, style="bold"), bars, figures)


def _bar(share: float, colour: str) -> tuple[ProgressBar, str]:
    bar = ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH, complete_style=colour, finished_style=colour)
    return bar, f"{share:.1%}"


def table(steps: Sequence[Step]) -> Table:
    """Expected and seen, a row a step."""
    result = Table(title="What was promised, and what happened", title_justify="left")
    for name in ("step", "expected", "seen", "requests", "failed", "held"):
        result.add_column(name, justify="right" if name in {"requests", "failed"} else "left", overflow="fold")
    for step in steps:
        verdict = Text("yes", style="green") if step.held else Text("NO", style="bold red")
        # Texts: rich would take what stands in brackets, as in the words of kubectl and Envoy, for markup.
        cells = (step.name, step.expected, step.seen, str(step.requests), str(step.failed))
        result.add_row(*map(Text, cells), verdict)
    return result


def write(path: Path, steps: Sequence[Step], seconds: float) -> None:
    """Write the figures of all steps as JSON."""
    report = {"held": all(step.held for step in steps), "seconds": seconds, "error": statistics.ERROR}
    path.write_text(json.dumps(report | {"steps": [step.as_json() for step in steps]}, indent=2) + "\n")


def percent(shares: Mapping[str, float]) -> str:
    """`stable 90.0 %, v2 10.0 %`."""
    return ", ".join(f"{name} {share * 100:.1f} %" for name, share in shares.items()) or "no answer"
