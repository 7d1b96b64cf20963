"""The cluster as a source: a reflector for each resource, all feeding what they find, as a directory does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial

import structlog

from translator.objects import EndpointSlice, Ref, identify
from xdserve.kube.client import Client
from xdserve.kube.frames import Document
from xdserve.kube.held import Held, Meta, Reading, understand
from xdserve.kube.reflector import Counts, Deleted, Event, Listed, Reflector, Upserted
from xdserve.kube.resources import RESOURCES, TARGETS, Resource, Scope
from xdserve.sources import Broken, Change, Feed, Gone, Put, Source, SourceError

logger = structlog.get_logger("xdserve.source")

CLUSTER = "kubernetes"
"""What errors about the cluster as a whole name in place of a file."""


class KubernetesSource:
    """Feeds the objects of a cluster into ``feed``: all at once at first, then what changes, a batch a loop turn.

    ``synced`` is set when every resource that the cluster serves has been listed and fed.

    Args:
        client: how the apiserver is reached; who made it closes it.
        feed: who takes what is found.
        namespaces: those that are read; empty for all.
        selector: labels of the targets (InferenceServices and Inferences) that are read; empty for all.
        resources: what is read.
        restated: called with an object when who writes to it should look again, though nothing in it is another for
            the feed: its status, its generation, its uid.
    """

    def __init__(  # noqa: PLR0913 - what a source is made of
        self,
        client: Client,
        feed: Feed,
        namespaces: Sequence[str] = (),
        selector: str = "",
        resources: Sequence[Resource] = RESOURCES,
        *,
        restated: Callable[[Ref], None] = lambda _: None,
    ) -> None:
        self.synced = asyncio.Event()
        self._feed = feed
        self._held = Held(restated)
        self._pending: dict[Ref, list[Change]] = {}
        self._flushing: asyncio.Handle | None = None
        self._absent: set[Resource] = set()
        self._reflectors = {
            scope: Reflector(client, scope, understand, partial(self._take, scope), self._told)
            for scope in _scopes(resources, namespaces, selector)
        }
        self._unlisted = set(self._reflectors)

    def awaited(self) -> str:
        """The resources that have yet to be listed, in words; empty when all have been."""
        unlisted = dict.fromkeys(str(scope.resource) for scope in self._reflectors if scope in self._unlisted)
        return f"the first list of {', '.join(unlisted)}" if unlisted else ""

    def errors(self) -> list[SourceError]:
        """All that is wrong now."""
        return [*self._troubles(), *self._held.errors()]

    def renewed(self) -> list[tuple[str, tuple[SourceError, ...]]]:
        """The objects with which something else is wrong than when this was asked last; `kubernetes` is the cluster."""
        return [(CLUSTER, tuple(self._troubles())), *self._held.renewed()]

    def source(self, ref: Ref) -> Source | None:
        """Where an object is now."""
        return self._held.source(ref)

    def meta(self, ref: Ref) -> Meta | None:
        """What who writes to an object must know of its newest state; None for one that is not there."""
        return self._held.meta(ref)

    def document(self, ref: Ref) -> Document | None:
        """Of an object's newest state what its status is written by; None for one that is not there."""
        return self._held.document(ref)

    @property
    def broken(self) -> Collection[Ref]:
        """The objects whose newest state is invalid."""
        return self._held.broken

    def installed(self, resource: Resource) -> bool:
        """Whether the cluster serves a resource, as far as is known."""
        return resource not in self._absent

    def requests(self) -> dict[str, int]:
        """Requests made to the apiserver since the start: pages of lists, watches, looks for CRDs."""
        counts = [reflector.counts for reflector in self._reflectors.values()]
        return {what: sum(getattr(one, what) for one in counts) for what in ("lists", "pages", "watches", "looks")}

    def counts(self) -> Iterator[tuple[str, Counts]]:
        """What each reflector has asked for, with the kind that it follows."""
        return ((scope.resource.kind, reflector.counts) for scope, reflector in self._reflectors.items())

    async def run(self) -> None:
        """Feed what is there, then every change, until cancelled. An apiserver that is away is waited for."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for reflector in self._reflectors.values():
                    tasks.create_task(reflector.run())
        finally:
            if self._flushing:
                self._flushing.cancel()

    def _take(self, scope: Scope, events: Sequence[Event[Reading | None]]) -> None:
        changes: list[Change] = []
        for event in events:
            match event:
                case Listed():
                    changes += self._held.listed(scope, event.objects)
                    self._has(scope, installed=event.installed)
                case Upserted():
                    changes += self._held.upserted(scope, event.object) if event.object else ()
                case Deleted():
                    ref = identify(event.document)
                    changes += self._held.deleted(scope, ref) if ref else ()
        if self.synced.is_set() and scope.resource.kind == EndpointSlice.KIND:
            # Requests may be on their way to a pod that is gone: this does not wait for others' changes.
            self._feed.apply(changes) if changes else None
        else:
            self._put_off(changes)

    def _has(self, scope: Scope, *, installed: bool) -> None:
        """A scope has been listed: with the last of them, all is there."""
        if installed:
            self._absent.discard(scope.resource)
        elif scope.resource not in self._absent:  # which each of its namespaces says
            self._absent.add(scope.resource)
            logger.info("not installed, waited for", resource=str(scope.resource))
        self._unlisted.discard(scope)

    def _put_off(self, changes: Iterable[Change]) -> None:
        """Until the end of this turn of the loop, or while not all is there yet."""
        for change in changes:
            _join(self._pending, change)
        ready = not self._unlisted
        if ready and self._flushing is None and (self._pending or not self.synced.is_set()):
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = None
        pending, self._pending = self._pending, {}
        self._feed.apply([change for changes in pending.values() for change in changes])
        self.synced.set()

    def _told(self) -> None:
        """Something else keeps a reflector from reading."""
        self._feed.apply([])

    def _troubles(self) -> list[SourceError]:
        """Each once: an apiserver that is away is one trouble and not one of each resource."""
        said = dict.fromkeys(r.trouble for r in self._reflectors.values() if r.trouble)
        return [SourceError(Source(CLUSTER, 0), None, "", text, "Unreadable") for text in said]


def _scopes(resources: Sequence[Resource], namespaces: Sequence[str], selector: str) -> list[Scope]:
    return [
        Scope(resource, namespace, selector if resource in TARGETS else "")
        for resource in resources
        for namespace in (namespaces or (None,))
    ]


def _join(pending: dict[Ref, list[Change]], change: Change) -> None:
    """Of several changes of an object the last one counts; what is broken keeps the last good one before it."""
    match change:
        case Put():
            ref = change.object.ref
            pending.pop(ref, None)
            pending[ref] = [change]
        case Gone():
            pending.pop(change.ref, None)
            pending[change.ref] = [change]
        case Broken():
            pending.setdefault(change.ref, []).append(change)
