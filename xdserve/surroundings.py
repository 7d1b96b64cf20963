"""What a program has around it: where objects come from, who says who a peer is, and who follows what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from translator.objects.ref import Ref
from translator.plan import Finding
from translator.view import Named
from xds.identity import Authenticator
from xds.observer import Observer
from xds.server import Server
from xdserve.conditions import Delivery
from xdserve.judge import Judge
from xdserve.ledger import Ledger
from xdserve.metrics import Metrics
from xdserve.pipeline import Pipeline
from xdserve.rejections import Rejections
from xdserve.sources import Change, Feed, Source, SourceError
from xdserve.sources.directory import DirectorySource


class ObjectSource(Protocol):
    """Feeds objects, and says what is wrong with them."""

    synced: asyncio.Event
    """Set when all that is there has been fed."""

    async def run(self) -> None:
        """Feed what is there, then every change, until cancelled."""

    def awaited(self) -> str:
        """What has yet to be read for the first time, in words; empty when nothing has."""

    def errors(self) -> list[SourceError]:
        """All that is wrong now."""

    def renewed(self) -> Sequence[tuple[str, tuple[SourceError, ...]]]:
        """By file, what is wrong where that is something else than when this was asked last."""

    def source(self, ref: Ref) -> Source | None:
        """Where an object is written now."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a program that its surroundings look at."""

    pipeline: Pipeline
    server: Server
    ledger: Ledger
    rejections: Rejections
    judge: Judge
    metrics: Metrics


class Surroundings(Protocol):
    """Is asked for what it brings first, then joined, then told; what it is told must neither raise nor block."""

    def observer(self, observer: Observer) -> Observer:
        """The server's observer, which tells `observer` all that it is told."""

    def authenticators(self) -> Sequence[Authenticator]:
        """Who tells who a peer is, beside what the settings have."""

    def elsewhere(self, gateway: str) -> Sequence[Delivery]:
        """What other replicas say of a gateway."""

    def wanted(self, target: Ref) -> bool | None:
        """Whether a target is to have a gateway; None where nobody has said so."""

    def starting(self, target: Ref) -> str | None:
        """What keeps the pods of a target's gateway from running; None where nothing is known of that."""

    def named(self) -> Named:
        """The objects that are asked for by name; it answers each that is read, within seconds."""

    def source(self, feed: Feed) -> ObjectSource:
        """Where objects come from."""

    def join(self, parts: Parts) -> None:
        """The program is made, and has its source."""

    async def ready(self) -> None:
        """Wait for what must be there before the server starts."""

    def certificate(self) -> tuple[Path, Path] | None:
        """Files of the server's certificate and key, when `ready`; None for those of the settings."""

    def tasks(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What is to run as long as the program."""

    def opened(self) -> None:
        """The first pass over all objects is done."""

    def applied(self, changes: Sequence[Change]) -> None:
        """Objects are others; they have yet to be planned."""

    def found(self, owner: Ref, findings: Sequence[Finding]) -> None:
        """A target has been planned, or what is attached to one been looked at."""


class OnDirectory:
    """A directory of files brings objects, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def observer(self, observer: Observer) -> Observer:
        """That alone."""
        return observer

    def authenticators(self) -> Sequence[Authenticator]:
        """None."""
        return ()

    def elsewhere(self, _gateway: str) -> Sequence[Delivery]:
        """There are no other replicas."""
        return ()

    def wanted(self, _target: Ref) -> bool | None:
        """Who keeps the files starts Envoys, or none."""
        return None

    def starting(self, _target: Ref) -> str | None:
        """Nothing is known of Envoys that are not there."""
        return None

    def named(self) -> Named:
        """None: a directory brings objects of all kinds."""
        return Named()

    def source(self, feed: Feed) -> ObjectSource:
        """The directory."""
        return DirectorySource(self._directory, feed)

    def join(self, parts: Parts) -> None:
        """Nobody follows the program."""

    async def ready(self) -> None:
        """Nothing is needed."""

    def certificate(self) -> tuple[Path, Path] | None:
        """That of the settings."""
        return None

    def tasks(self) -> Sequence[Coroutine[Any, Any, None]]:
        """None."""
        return ()

    def opened(self) -> None:
        """Nobody waits for it."""

    def applied(self, changes: Sequence[Change]) -> None:
        """Nobody is told."""

    def found(self, owner: Ref, findings: Sequence[Finding]) -> None:
        """Nobody is told."""
