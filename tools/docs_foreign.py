"""The parts of docs/ about the objects of KServe and KubeDL, made from the tables by which they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markdown_tables import code, table

from translator.objects.foreign_fields import INFERENCE, INFERENCE_SERVICE, Level, Use
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.passed_over import KFSERVING, KINDS, OLD_GROUP


def fields() -> str:
    """One table a kind: the fields of each level by what is made of them."""
    parts = []
    for kind, levels in ((InferenceService.KIND, INFERENCE_SERVICE), (Inference.KIND, INFERENCE)):
        head = ("what is made of it", "at", "fields")
        parts.append(f"### {kind}, {levels[0].version}\n\n{table(head, rows_of(levels))}")
    return "\n".join(parts)


def rows_of(levels: Sequence[Level]) -> Iterable[Sequence[str]]:
    """One row a use and the fields that have it; levels that have the same stand in one row."""
    for use in Use:
        rows: dict[str, list[str]] = {}
        for level in levels:
            names = sorted(name for name, known in level.uses.items() if known is use)
            rows.setdefault(" ".join(map(code, names)), []).append(code(level.path))
        yield from ((use.value, " ".join(paths), names) for names, paths in rows.items() if names)


def passed_over() -> str:
    """One row a kind that is not read and about which a note says so."""
    rows = [(code(f"{group}/{kind}" if group else kind), note.message) for (group, kind), note in KINDS.items()]
    return table(("kind", "note"), [*rows, (f"all of {code(KFSERVING)}", OLD_GROUP.message)])
