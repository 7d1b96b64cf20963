"""Says why gateways have no Envoys, while this replica leads: by what has been listed of their Deployments.

That costs no request; to look at pods, where that is allowed, costs one for each gateway that has no Envoy, a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from bootstrap.manifests import labels, selector
from translator import names
from translator.objects.ref import Ref
from xdserve.kube.calls import Caller, CallError
from xdserve.kube.deployments import why_not_started
from xdserve.kube.pace import Pace
from xdserve.kube.parts import Listing
from xdserve.kube.wanted import Found, ours
from xdserve.pauses import Pauses

logger = structlog.get_logger("xdserve.provision")

PER_SECOND, BURST = 10.0, 10.0
"""Requests."""
PODS = 10
"""Of a gateway, that are looked at."""


class Leads(Protocol):
    """Whether this replica leads."""

    @property
    def held(self) -> bool:
        """Whether it does at this moment."""


class Gateways(Protocol):
    """Who knows of gateways."""

    def targets(self) -> Sequence[Ref]:
        """Those that are to have one."""

    def lacking(self, target: Ref) -> bool:
        """Whether no Envoy of a target's gateway is connected anywhere."""

    def stalled(self, target: Ref) -> None:
        """Something else is said of why that is so."""


class Starting:
    """What keeps gateways from having Envoys.

    Args:
        call: makes requests.
        leadership: whether this replica looks.
        gateways: which there are, and who is told.
        release: whose Deployments are understood.
        pods: whether pods are looked at.
    """

    def __init__(self, call: Caller, leadership: Leads, gateways: Gateways, release: str, *, pods: bool) -> None:
        self._call, self._leadership, self._gateways, self._release = call, leadership, gateways, release
        self._pods_too = pods
        self._pace = Pace(PER_SECOND, BURST)
        self._words: dict[Ref, str] = {}
        self._listing: Listing | None = None
        self._troubled = False
        self._woken = asyncio.Event()

    def words(self, target: Ref) -> str | None:
        """Why a target's gateway has no Envoys, in one line; None where nothing is known of that."""
        return self._words.get(target) if self._leadership.held else None

    def looked(self, listing: Listing) -> None:
        """All Deployments of gateways have been listed. Never waits."""
        self._listing = listing
        self._woken.set()

    async def run(self) -> None:
        """Look at what is listed, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            listing, self._listing = self._listing, None
            if listing is not None:
                await self.look(listing)

    async def look(self, found: Mapping[tuple[str, str, str], Found]) -> None:
        """Look at all gateways that have no Envoy."""
        targets = await self._without_envoys()
        for target in self._words.keys() - set(targets):
            self._say(target, None)
        for target in targets:
            if not self._leadership.held:
                return
            await self._guarded(target, found.get(("Deployment", target.namespace, names.entrance(target))))
            await asyncio.sleep(0)

    async def _without_envoys(self) -> list[Ref]:
        pauses, found = Pauses(), []
        for target in self._gateways.targets():
            if self._gateways.lacking(target):
                found.append(target)
            if pauses.due:
                await pauses.take()
        return found

    async def _guarded(self, target: Ref, deployment: Found | None) -> None:
        """An answer that is not as it should be costs one gateway its words."""
        try:
            self._say(target, await self._why(target, deployment))
        except (KeyError, TypeError, AttributeError) as error:
            logger.exception("a Deployment cannot be understood", target=str(target), exc_info=error)

    def _say(self, target: Ref, words: str | None) -> None:
        if words == self._words.get(target):
            return
        if words is None:
            self._words.pop(target, None)
        else:
            self._words[target] = words
            logger.warning("a gateway has no Envoys", target=str(target), cause=words)
        self._gateways.stalled(target)

    async def _why(self, target: Ref, deployment: Found | None) -> str | None:
        if deployment is None or not ours({"metadata": {"labels": labels(target, self._release)}}, deployment):
            return None
        try:
            return why_not_started(deployment, await self._pods(target) if self._pods_too else ())
        except CallError as error:
            if not self._troubled:
                logger.warning("pods of gateways cannot be looked at", target=str(target), cause=str(error))
            self._troubled = True
            return why_not_started(deployment) or self._words.get(target)

    async def _pods(self, target: Ref) -> Iterable[Mapping[str, Any]]:
        await self._pace.turn()
        wanted = ",".join(f"{key}={value}" for key, value in selector(target).items())
        query = {"labelSelector": wanted, "limit": str(PODS)}
        answer = await self._call("GET", f"/api/v1/namespaces/{target.namespace}/pods", query=query)
        self._troubled = False
        items: Iterable[Mapping[str, Any]] = answer.get("items") or ()
        return items
