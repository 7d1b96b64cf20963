"""The active components of InferenceServices: values to rows and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

from translator.objects.ref import Ref
from translator.planners.components import ActiveComponents
from xdserve.store.policies import target_key

Active: TypeAlias = Mapping[Ref, ActiveComponents]
"""The components that get the requests, by target."""


class ActiveRow(NamedTuple):
    """A row of `active`."""

    target: str
    entry: str
    predictor: str
    explainer: int
    digest: bytes


def active_row(target: Ref, active: ActiveComponents) -> ActiveRow:
    """The row of a target's components."""
    row = ActiveRow(target_key(target), active.entry, active.predictor, int(active.explainer), b"")
    return row._replace(digest=_digest(row))


def active_of(rows: Iterable[ActiveRow]) -> Active:
    """The components of rows.

    Raises:
        ValueError, TypeError: a row was altered.
    """
    return dict(map(_read, rows))


def _read(row: ActiveRow) -> tuple[Ref, ActiveComponents]:
    if row.digest != _digest(row):
        raise ValueError("active components were altered")
    return Ref(*json.loads(row.target)), ActiveComponents(row.entry, row.predictor, bool(row.explainer))


def _digest(row: ActiveRow) -> bytes:
    """Shows that a row was altered."""
    return blake2b(json.dumps(row[:-1]).encode(), digest_size=16).digest()
