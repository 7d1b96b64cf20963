"""The policies that are in force, as documents again: what the program itself refuses later is replaced by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

import structlog

from translator.objects import ObjectInvalid, TrafficPolicy, parse
from translator.objects.ref import Ref
from xdserve.store.rows import blob, text

logger = structlog.get_logger("xdserve.store")


class Accepted(NamedTuple):
    """A policy that was in force, and the file that it stood in (as messages name it; empty if in none)."""

    policy: TrafficPolicy
    file: str


Policies: TypeAlias = Mapping[Ref, Accepted]
"""The policies in force, by target."""


class AcceptedRow(NamedTuple):
    """A row of `accepted`."""

    target: str
    file: bytes
    document: str
    digest: bytes


def document(policy: TrafficPolicy) -> dict[str, Any]:
    """What `parse` makes an equal policy of."""
    said = policy.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"apiVersion": f"{policy.GROUP}/{policy.VERSION}", "kind": policy.KIND, **said}


def target_key(target: Ref) -> str:
    """The key of a target's row."""
    return json.dumps(target)


def accepted_row(target: Ref, accepted: Accepted) -> AcceptedRow:
    """The row of a target's policy."""
    row = AcceptedRow(target_key(target), blob(accepted.file), json.dumps(document(accepted.policy)), b"")
    return row._replace(digest=_digest(row))


def policies_of(rows: Iterable[AcceptedRow]) -> Policies:
    """The policies of rows. One that this program's rules do not allow any more is left out, and told.

    Raises:
        ValueError, TypeError, AttributeError: a row was altered.
    """
    policies: dict[Ref, Accepted] = {}
    for row in rows:
        if row.digest != _digest(row):
            raise ValueError("a policy was altered")
        target = Ref(*json.loads(row.target))
        try:
            policy = parse(json.loads(row.document))
        except ObjectInvalid as invalid:
            logger.warning("last good policy not allowed any more", target=str(target), cause=str(invalid))
            continue
        if not isinstance(policy, TrafficPolicy):
            raise TypeError("it is no policy")
        policies[target] = Accepted(policy, text(row.file))
    return policies


def _digest(row: AcceptedRow) -> bytes:
    """Shows that a row was altered."""
    target, written = row.target.encode(), row.document.encode()
    head = b"%d %d %d " % (len(target), len(row.file), len(written))
    return blake2b(b"".join((head, target, row.file, written)), digest_size=16).digest()
