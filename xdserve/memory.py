"""What Envoys acknowledged and refused, and what was in force, kept over a restart of the program."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from translator.objects.ref import Ref
from translator.planners.components import ActiveComponents
from xds.scope import Scope
from xds.server import Server
from xdserve.pipeline import Pipeline
from xdserve.settings import Settings
from xdserve.sources import Broken, Change, Gone, Source, SourceError
from xdserve.store import Accepted, Keeper, Store

CLOSE_SECONDS = 2.0


def file_of(settings: Settings) -> Path | None:
    """The file in the state directory, named by the source: what one source does not have is not forgotten of another.

    By the path that was given, and not where it leads to if it is a link: that may be another directory each day.
    """
    if settings.state_path is None:
        return None
    source = settings.source or Path()
    name = bytes(source.absolute()) if isinstance(source, Path) else source.encode()
    return settings.state_path / f"last-good-{blake2b(name, digest_size=8).hexdigest()}.sqlite"


class Places(Protocol):
    """What is asked of a source."""

    def errors(self) -> Collection[SourceError]:
        """All that is wrong now."""

    def source(self, ref: Ref) -> Source | None:
        """Where an object is written now."""


class LastGood:
    """The store of last good versions and of what is in force, between a program and a file; nothing if it is off.

    Args:
        settings: whether and where there is one.
        server: whose gateways are remembered.
        pipeline: whose policies and active components are.
        source: that says where they are written.
    """

    def __init__(self, settings: Settings, server: Server, pipeline: Pipeline, source: Places) -> None:
        self._server = server
        self._source = source
        self._keeper: Keeper | None = None
        self._restored: set[str] = set()
        self._settled = False
        self._in_force = InForce(pipeline, source)
        self._path = file_of(settings) if settings.last_good else None

    @property
    def failures(self) -> int:
        """Writes that failed."""
        return self._keeper.failures if self._keeper else 0

    def open(self) -> None:
        """Give server and pipeline what earlier ones knew; to be called before anything is read or published."""
        store = Store.open(self._path) if self._path else None
        if store is None:
            return
        for gateway, memories in store.load().items():
            self._server.restore(gateway, memories)
            self._restored.add(gateway)
        self._in_force.restore(store.policies(), store.active())
        self._keeper = Keeper(store, self._changed, self._in_force)

    def unread(self) -> list[Change]:
        """What is to be said of policies that stood in files which cannot be read; see `InForce.unread`."""
        return self._in_force.unread()

    def settle(self, gateways: Collection[str]) -> None:
        """What an earlier server knew of gateways and targets that are no more is forgotten, once all is read.

        To be called whenever all is done; as long as the source has errors, what is missing may stand there.
        A gateway of which an Envoy is connected waits for that to leave: to forget it would empty the Envoy.
        """
        if not self._is_settled():
            return
        orphans = self._restored.difference(gateways)
        self._restored = {gateway for gateway in orphans if self._server.connected(gateway)}
        for gateway in orphans - self._restored:
            self._server.forget(gateway)

    def _is_settled(self) -> bool:
        """Whether there was a time at which everything could be read; policies are settled then."""
        if not self._settled and not self._source.errors():
            self._settled = True
            if self._keeper:
                self._in_force.settle()
        return self._settled

    async def run(self) -> None:
        """Write what changes, until cancelled."""
        if self._keeper:
            await self._keeper.run()

    async def close(self) -> None:
        """Write what is left."""
        if self._keeper:
            self._in_force.find_moved()
            await self._keeper.close(CLOSE_SECONDS)

    def _changed(self) -> Mapping[str, Scope]:
        changed = self._server.changed_scopes()
        for gateway, scope in changed.items():
            if scope is None and self._keeper:
                self._keeper.forget(gateway)
        return {gateway: scope for gateway, scope in changed.items() if scope is not None}


class InForce:
    """The pipeline's policies in force, each with the file that it stands in, and the active components of targets.

    A source keeps what a file held while its text cannot be told apart into objects; a source that has just begun
    does not know what that was. The file's name, written beside the policy, tells it.
    """

    def __init__(self, pipeline: Pipeline, source: Places) -> None:
        self._pipeline = pipeline
        self._source = source
        self._files: dict[Ref, str] = {}  # by target, as they are written
        self._unread: dict[Ref, str] = {}  # by policy; of what no text was seen yet
        self._moved: set[Ref] = set()

    def restore(self, policies: Mapping[Ref, Accepted], active: Mapping[Ref, ActiveComponents]) -> None:
        """What an earlier program had in force."""
        self._pipeline.remember({target: found.policy for target, found in policies.items()}, active)
        self._files = {target: found.file for target, found in policies.items()}
        self._unread = {found.policy.ref: found.file for found in policies.values()}

    def unread(self) -> list[Change]:
        """What is to be said to the pipeline of policies that the source says nothing of.

        While the file that a policy stood in cannot be read, it is broken, which leaves what it was; when the file
        is read or gone without it, it is gone.
        """
        if not self._unread:
            return []
        unreadable = {error.source.file for error in self._source.errors() if error.object is None}
        changes: list[Change] = []
        for ref, file in list(self._unread.items()):
            if self._source.source(ref) is not None:
                del self._unread[ref]
            elif _and_above(file) & unreadable:
                changes.append(Broken(ref, (), Source(file, 0)))
            else:
                del self._unread[ref]
                changes.append(Gone(ref))
        return changes

    def settle(self) -> None:
        """All is read: what is of no target is forgotten."""
        self._pipeline.settle()
        self.find_moved()

    def find_moved(self) -> None:
        """See which policies stand in other files than was written; nobody is told when a file is renamed."""
        self._moved.update(target for target in self._pipeline.units if self._is_moved(target))

    def _is_moved(self, target: Ref) -> bool:
        found = self._found(target)
        return found is not None and found.file != self._files.get(target)

    def drain(self) -> Iterable[Ref]:
        """The targets that have something else in force than at the last call, or the same policy in another file."""
        moved, self._moved = self._moved, set()
        return moved.union(self._pipeline.drain())

    def accepted(self, target: Ref) -> Accepted | None:
        """The policy that is in force for a target now, to be written."""
        found = self._found(target)
        if found is None:
            self._files.pop(target, None)
        else:
            self._files[target] = found.file
        return found

    def active(self, target: Ref) -> ActiveComponents | None:
        """The components that get a target's requests now, to be written."""
        return self._pipeline.active(target)

    def _found(self, target: Ref) -> Accepted | None:
        policy = self._pipeline.accepted(target)
        if policy is None:
            return None
        source = self._source.source(policy.ref)
        return Accepted(policy, source.file if source else self._files.get(target, ""))


def _and_above(file: str) -> set[str]:
    """A file and the directories that it is in: one that cannot be listed stands for all in it."""
    parts = file.split("/")
    return {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
