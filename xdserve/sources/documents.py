"""The bytes of a file as documents: YAML or JSON, read so that no text can do harm.

YAML is read from libyaml's events, not by PyYAML's loaders: those follow nesting by recursion in C (a line of
brackets ends the process), turn dates into objects, ``010`` into 8 and ``1:30`` into 90, and let the last of two
equal keys win without a word. Here plain scalars are those of YAML 1.2's core schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol

import yaml

from translator.objects import items_of
from xdserve.sources.templates import unrendered, unrendered_json

LARGEST_FILE = 16 * 1024 * 1024
DEEPEST = 64  # Kubernetes' own deepest objects, pod templates inside custom resources, stay below 30
MOST_BY_ALIASES = 1_000_000  # values that the aliases of one file may stand for, all together


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file; the first is number 1, and each item of a list of objects counts as one."""

    index: int
    value: object


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A document that cannot be read, nor any after it; ``message`` is one line."""

    index: int
    message: str


def read(name: str, content: bytes) -> tuple[list[Document], Unreadable | None]:
    """The documents of a file, and where reading had to stop, if it had.

    ``name`` tells JSON (``.json``) from YAML. Empty documents are left out, but count.
    """
    documents: list[Document] = []
    index = 1
    try:
        for value in _values(name, content):
            items = items_of(value)
            documents += [Document(index + offset, item) for offset, item in enumerate(items) if item is not None]
            index += len(items)
    except _Stop as stop:
        return documents, Unreadable(index, str(stop))
    return documents, None


class _Stop(Exception):
    """Ends the reading of a file; its text is for the file's author."""


def _values(name: str, content: bytes) -> Iterator[object]:
    if len(content) > LARGEST_FILE:
        raise _Stop(f"found {len(content)} bytes, allowed {LARGEST_FILE}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Stop(f"found a byte at {error.start} that is not UTF-8") from None
    return iter([_json(text)]) if name.endswith(".json") else _Yaml(text).documents()


def _json(text: str) -> object:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if "\\u" in text:  # half of a surrogate pair is valid JSON and no valid text
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        template = unrendered_json(text, error.pos, error.lineno, error.colno)
        raise _Stop(template or f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise _Stop("nested too deep") from None
    except UnicodeEncodeError:
        raise _Stop("found half of a surrogate pair (\\ud800 to \\udfff)") from None
    except ValueError as error:  # a number of thousands of digits
        raise _Stop(str(error)) from None
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise _Stop(f"key {_quoted(key)} is written twice in one map")
        result[key] = value
    return result


def _no_constant(name: str) -> NoReturn:
    raise _Stop(f"found {name}, allowed a number of JSON")


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else text[:57] + "...")


class _Mark(Protocol):
    """Where in the text, from 0."""

    line: int
    column: int


class _Yaml:
    """Builds the values of one text from its events."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._events = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._anchors: dict[str, tuple[object, int]] = {}  # the value, and how many values it is made of
        self._count = 0
        self._by_aliases = 0

    def documents(self) -> Iterator[object]:
        """Each document's value; None for an empty one."""
        try:
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors.clear()
                    yield self._value(next(self._events), 0)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = _at(mark) + " ".join(filter(None, (error.problem, error.context)))
            raise _Stop(self._unrendered(error.problem_mark, error.context_mark) or said) from None
        except yaml.YAMLError as error:
            raise _Stop(" ".join(str(error).split())) from None

    def _value(self, event: yaml.Event, depth: int) -> object:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth > DEEPEST:
            raise _Stop(f"{_at(event.start_mark)}nested deeper than {DEEPEST}")
        before = self._count
        self._count += 1
        value: object
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(event, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(event, depth)
        else:
            raise _Stop(f"{_at(event.start_mark)}found no value")
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._count - before
        return value

    def _alias(self, event: yaml.AliasEvent) -> object:
        # An anchor is known when its value is complete, so nothing can contain itself.
        value, weight = self._anchored(event)
        self._count += weight
        self._by_aliases += weight
        if self._by_aliases > MOST_BY_ALIASES:
            raise _Stop(f"{_at(event.start_mark)}aliases stand for more than {MOST_BY_ALIASES} values")
        return value

    def _anchored(self, event: yaml.AliasEvent) -> tuple[object, int]:
        known = self._anchors.get(event.anchor or "")
        if known is None:
            raise _Stop(f"{_at(event.start_mark)}alias {_quoted(event.anchor or '')} has no anchor before it")
        return known

    def _sequence(self, start: yaml.SequenceStartEvent, depth: int) -> list[object]:
        _check_tag(start, "seq")
        result: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            result.append(self._value(event, depth + 1))
        return result

    def _mapping(self, start: yaml.MappingStartEvent, depth: int) -> dict[str, object]:
        _check_tag(start, "map")
        result: dict[str, object] = {}
        merged: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            value = self._value(next(self._events), depth + 1)
            if key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                merged = _merge(merged, value, event.start_mark)
            elif key in result:
                raise _Stop(f"{_at(event.start_mark)}key {_quoted(key)} is written twice in one map")
            else:
                result[key] = value
        return {**merged, **result} if merged else result

    def _key(self, event: yaml.Event) -> str:
        """Keys are the text they are written as: JSON has no other."""
        if isinstance(event, yaml.AliasEvent):
            key, _ = self._anchored(event)
            if isinstance(key, str):
                return key
        if not isinstance(event, yaml.ScalarEvent):
            said = f"{_at(event.start_mark)}a key must be a plain word"
            raise _Stop(self._unrendered(event.start_mark) or said)
        if event.anchor is not None:
            self._anchors[event.anchor] = event.value, 1
        return event.value

    def _unrendered(self, *marks: _Mark | None) -> str | None:
        """What to say if the cause is a template's tag where reading stopped."""
        found = (unrendered(self._text, mark.line) for mark in marks if mark)
        return next(filter(None, found), None)


def _merge(merged: dict[str, object], value: object, mark: _Mark | None) -> dict[str, object]:
    """``<<``: the keys of one map or of several, the first that has a key wins."""
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            raise _Stop(f"{_at(mark)}<< wants a map or a list of maps")
        merged = {**each, **merged}
    return merged


_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,39})|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,40}|(0|[1-9][0-9]{0,39})(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_FIRST_OF_NUMBERS = frozenset("0123456789+-.")


def _scalar(event: yaml.ScalarEvent) -> object:
    text = event.value
    if not event.implicit[0] or event.tag == "!":
        if event.tag is not None and event.tag not in {"!", _TAG + "str"}:
            _check_tag(event, "str")
        return text
    if text in _WORDS:
        return _WORDS[text]
    return _number(text) if text[0] in _FIRST_OF_NUMBERS else text


def _number(text: str) -> int | float | str:
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def _check_tag(event: yaml.ScalarEvent | yaml.CollectionStartEvent, allowed: str) -> None:
    if event.tag not in {None, "!", _TAG + allowed}:
        raise _Stop(f"{_at(event.start_mark)}tag {_quoted(event.tag or '')} is not supported")


def _at(mark: _Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
