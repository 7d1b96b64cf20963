"""The bytes of a watch as events: one JSON document a line. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from xdserve.kube.course import Failed, Trouble

LONGEST_LINE = 8 * 1024 * 1024
"""etcd's own limit for a request is 1.5 MB; a document in JSON is some larger than what is stored."""

_BULK = "kubectl.kubernetes.io/last-applied-configuration"
_GONE, _FORBIDDEN = 410, 403

Document: TypeAlias = dict[str, Any]


class Changed(NamedTuple):
    """An object is new, or has changed to this."""

    document: Document


class Removed(NamedTuple):
    """An object is gone; this is what it was."""

    document: Document


class Bookmark(NamedTuple):
    """Nothing happened up to this resourceVersion."""

    resource_version: str


Frame: TypeAlias = Changed | Removed | Bookmark


class Lines:
    """Bytes in as they come, whole lines out."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that a chunk completes.

        Raises:
            Failed: a line is longer than is read.
        """
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            parts, self._parts, self._size = self._parts, [], 0
            if joined := b"".join([*parts, line]):
                yield joined
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
        if self._size > self._longest:
            raise Failed(Trouble.BROKEN, f"a line of a watch is longer than {self._longest} bytes")


def frame(line: bytes) -> Frame:
    """What a line of a watch says.

    Raises:
        Failed: it is an ERROR, or cannot be understood.
    """
    event = parsed(line)
    document = event.get("object")
    if not isinstance(document, dict):
        raise Failed(Trouble.BROKEN, "an event of a watch has no object")
    match event.get("type"):
        case "ADDED" | "MODIFIED":
            return Changed(slim(document))
        case "DELETED":
            return Removed(slim(document))
        case "BOOKMARK":
            return Bookmark(version_of(document))
        case "ERROR":
            code = document.get("code")
            raise failure(code if isinstance(code, int) else 0, document)
    raise Failed(Trouble.BROKEN, "an event of a watch has an unknown type")


def parsed(text: bytes) -> Document:
    """A JSON object.

    Raises:
        Failed: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failed(Trouble.BROKEN, f"the apiserver's answer is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Failed(Trouble.BROKEN, "the apiserver's answer is no JSON object")
    return found


def version_of(document: Mapping[str, Any]) -> str:
    """The resourceVersion of an object or a list.

    Raises:
        Failed: it has none.
    """
    metadata = document.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    if not isinstance(version, str) or not version:
        raise Failed(Trouble.BROKEN, "the apiserver's answer has no metadata.resourceVersion")
    return version


def slim(document: Document) -> Document:
    """The document without what is large and read by nobody; changed in place."""
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(_BULK, None)
    return document


def failure(status: int, said: Mapping[str, Any], retry_after: float = 0.0) -> Failed:
    """What an HTTP status, or the code of a ``Status`` in a watch, means for who reads."""
    message = " ".join(str(said.get("message") or f"status {status}").split())[:500]
    details = said.get("details")
    if isinstance(details, Mapping) and isinstance(details.get("retryAfterSeconds"), int):
        retry_after = max(retry_after, details["retryAfterSeconds"])
    if status == _GONE:
        return Failed(Trouble.EXPIRED, message)
    if status == 404:
        return Failed(Trouble.NOT_FOUND, message)
    if status == _FORBIDDEN:
        return Failed(Trouble.FORBIDDEN, message)
    return Failed(Trouble.AWAY, message, retry_after)
