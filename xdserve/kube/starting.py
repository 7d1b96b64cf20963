"""Looks at the Deployments of gateways without Envoys, while this replica leads, and says why they have none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from bootstrap.manifests import labels, selector
from translator import names
from translator.objects.ref import Ref
from xdserve.kube.calls import Caller, CallError
from xdserve.kube.deployments import why_not_started
from xdserve.kube.pace import Pace
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


class Starting:
    """What keeps gateways from having Envoys.

    Args:
        call: makes requests.
        release: whose Deployments are looked at.
        held: whether this replica leads at this moment.
        targets: those that are to have a gateway.
        lacking: whether no Envoy of a target's gateway is connected anywhere.
        changed: called with a target of whose gateway something else is said.
        clock: seconds, monotonic.
        every: seconds between looks.
    """

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        call: Caller,
        release: str,
        *,
        held: Callable[[], bool],
        targets: Callable[[], Sequence[Ref]],
        lacking: Callable[[Ref], bool],
        changed: Callable[[Ref], None],
        clock: Callable[[], float] = time.monotonic,
        every: float = LOOK_SECONDS,
    ) -> None:
        self._call, self._release, self._held = call, release, held
        self._targets, self._lacking, self._changed = targets, lacking, changed
        self._clock, self._every = clock, every
        self._pace = Pace(PER_SECOND, BURST)
        self._words: dict[Ref, str] = {}
        self._forbidden: dict[str, float] = {}

    def words(self, target: Ref) -> str | None:
        """Why a target's gateway has no Envoys, in one line; None where nothing is known of that."""
        return self._words.get(target)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Look at all gateways that have no Envoy."""
        targets = await self._without_envoys() if self._held() else []
        for target in self._words.keys() - set(targets):
            self._say(target, None)
        for target in targets:
            await self._pace.turn()
            if not self._held():
                return
            self._say(target, await self._why(target))

    async def _without_envoys(self) -> list[Ref]:
        pauses, found = Pauses(), []
        for target in self._targets():
            if self._lacking(target):
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
        self._changed(target)

    async def _why(self, target: Ref) -> str | None:
        name = names.entrance(target)
        path = f"/apis/apps/v1/namespaces/{target.namespace}/deployments/{name}"
        try:
            found = await self._call("GET", path)
        except CallError:
            return None  # it is not there yet, or the apiserver is away: who makes it tells
        if not ours({"metadata": {"labels": labels(target, self._release)}}, found):
            return None
        return why_not_started(found, await self._pods(target))

    async def _pods(self, target: Ref) -> Iterable[Mapping[str, Any]]:
        """None where it is not allowed to look at them."""
        namespace = target.namespace
        if self._forbidden.get(namespace, 0.0) > self._clock():
            return ()
        wanted = ",".join(f"{key}={value}" for key, value in selector(target).items())
        query = {"labelSelector": wanted, "limit": str(PODS)}
        try:
            answer = await self._call("GET", f"/api/v1/namespaces/{namespace}/pods", query=query)
        except CallError as error:
            if error.status == 403:
                self._forbidden[namespace] = self._clock() + FORBIDDEN_SECONDS
            return ()
        items: Iterable[Mapping[str, Any]] = answer.get("items") or ()
        return items
