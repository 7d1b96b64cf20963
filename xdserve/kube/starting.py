"""Looks at the Deployments of gateways without Envoys, while this replica leads, and says why they have none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from bootstrap.manifests import labels, selector
from translator import names
from translator.objects.ref import Ref
from xdserve.kube.calls import Caller, CallError
from xdserve.kube.deployments import why_not_started
from xdserve.kube.pace import Pace
from xdserve.kube.provision import Leads
from xdserve.kube.wanted import ours
from xdserve.pauses import Pauses

logger = structlog.get_logger("xdserve.provision")

LOOK_SECONDS = 5.0
PER_SECOND, BURST = 10.0, 10.0
"""Requests."""
PODS = 10
"""Of a gateway, that are looked at."""
FORBIDDEN_SECONDS = 600.0
"""Until it is asked again for pods of a namespace, where that was forbidden: the chart allows it on demand alone."""


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
        release: whose Deployments are looked at.
        leadership: whether this replica looks.
        gateways: which there are, and who is told.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        call: Caller,
        release: str,
        leadership: Leads,
        gateways: Gateways,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call, self._release, self._leadership, self._gateways = call, release, leadership, gateways
        self._clock = clock
        self._pace = Pace(PER_SECOND, BURST)
        self._words: dict[Ref, str] = {}
        self._forbidden: dict[str, float] = {}

    def words(self, target: Ref) -> str | None:
        """Why a target's gateway has no Envoys, in one line; None where nothing is known of that."""
        return self._words.get(target)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look at all gateways that have no Envoy."""
        targets = await self._without_envoys() if self._leadership.held else []
        for target in self._words.keys() - set(targets):
            self._say(target, None)
        for target in targets:
            await self._pace.turn()
            if not self._leadership.held:
                return
            await self._guarded(target)

    async def _guarded(self, target: Ref) -> None:
        """An answer that is not as it should be costs one gateway its words."""
        try:
            self._say(target, await self._why(target))
        except (KeyError, TypeError, AttributeError) as error:
            logger.exception("a Deployment cannot be understood", target=str(target), exc_info=error)

    async def _without_envoys(self) -> list[Ref]:
        pauses, found = Pauses(), []
        for target in self._gateways.targets():
            if self._gateways.lacking(target):
                found.append(target)
            if pauses.due:
                await pauses.take()
        return found

    def _say(self, target: Ref, words: str | None) -> None:
        if words == self._words.get(target):
            return
        if words is None:
            self._words.pop(target, None)
        else:
            self._words[target] = words
            logger.warning("a gateway has no Envoys", target=str(target), cause=words)
        self._gateways.stalled(target)

    async def _why(self, target: Ref) -> str | None:
        path = f"/apis/apps/v1/namespaces/{target.namespace}/deployments/{names.entrance(target)}"
        try:
            found = await self._call("GET", path)
            if not ours({"metadata": {"labels": labels(target, self._release)}}, found):
                return None
            return why_not_started(found, await self._pods(target))
        except CallError as error:
            return None if error.status == 404 else self._words.get(target)

    async def _pods(self, target: Ref) -> Iterable[Mapping[str, Any]]:
        """Nothing where it is not allowed to look at them."""
        namespace = target.namespace
        if self._forbidden.get(namespace, 0.0) > self._clock():
            return ()
        wanted = ",".join(f"{key}={value}" for key, value in selector(target).items())
        query = {"labelSelector": wanted, "limit": str(PODS)}
        try:
            answer = await self._call("GET", f"/api/v1/namespaces/{namespace}/pods", query=query)
        except CallError as error:
            if error.status != 403:
                raise
            self._forbidden[namespace] = self._clock() + FORBIDDEN_SECONDS
            return ()
        items: Iterable[Mapping[str, Any]] = answer.get("items") or ()
        return items
