"""Figures beside those of an earlier run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure

WORSE, BETTER = 1.25, 0.8
"""Ratios beyond which a figure is marked: what is less is noise, as a rule."""
LARGER_IS_BETTER = frozenset(
    {
        "encoder against betterproto2's bytes()",
        "requests of 1 KiB, before",
        "requests of 1 KiB, after",
        "requests of 1 KiB, after over before",
    }
)
"""Of all other figures less is better."""

Key = tuple[str, int]
"""The name of a figure, and which of that name it is in its group."""


@dataclass(frozen=True, slots=True)
class Before:
    """The figures of an earlier run, by group."""

    groups: dict[str, list[Figure]]

    def of(self, group: str) -> dict[Key, Figure]:
        """The figures of a group by their keys."""
        figures = self.groups.get(group, [])
        return dict(zip(keys(figures), figures, strict=True))


def read(path: Path) -> Before:
    """What `--json` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is something else.
    """
    try:
        groups = json.loads(path.read_text())["figures"]
        return Before({group: [_figure(figure) for figure in figures] for group, figures in groups.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the figures of an earlier run ({error})") from error


def _figure(said: dict[str, Any]) -> Figure:
    figure = Figure(**said)
    figure.value = float(figure.value)
    return figure


def keys(figures: list[Figure]) -> Iterator[Key]:
    """A key for each figure: some have one name and differ in how much is held."""
    seen: dict[str, int] = {}
    for figure in figures:
        seen[figure.name] = seen.get(figure.name, -1) + 1
        yield figure.name, seen[figure.name]


def ratio_text(figure: Figure, was: Figure | None) -> str:
    """This figure over the earlier one, with a mark if that is much; nothing where there is no earlier one."""
    if was is None or not was.value or figure.unit != was.unit:
        return ""
    ratio = figure.value / was.value
    cost = (1 / ratio if ratio else math.inf) if figure.name in LARGER_IS_BETTER else ratio
    return f"{ratio:.2f}{' worse' if cost > WORSE else ' better' if cost < BETTER else ''}"
