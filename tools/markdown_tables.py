"""Tables of Markdown, and texts of fields in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic.fields import FieldInfo


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a cell with a bar in it is kept whole."""
    return lines_of([head, ["---"] * len(head), *lines])


def lines_of(lines: Iterable[Sequence[str]]) -> str:
    """The lines of a table."""
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def code(text: str) -> str:
    """The text as code, or nothing."""
    return f"`{text}`" if text else ""


def oneline(field: FieldInfo) -> str:
    """The description in one line."""
    return " ".join((field.description or "").split())
