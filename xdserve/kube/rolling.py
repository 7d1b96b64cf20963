"""Lets gateways' pods be replaced, some at a time, and sees how they come on; who may is decided by `Rolls`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from bootstrap.manifests import CA_FILE, Deploying, Manifest
from translator.objects.ref import Ref
from xdserve.kube.parts import Parts
from xdserve.kube.rolls import Rolls
from xdserve.kube.wanted import Found, content, ending, ours, rolled, rolling, rolls

logger = structlog.get_logger("xdserve.provision")

AGAIN_SECONDS = 5.0
"""Until it is seen whether an object that is being deleted is gone, or whether pods have been replaced."""
ROLLED = frozenset({"ConfigMap", "Deployment"})
"""What waits: an old pod that starts again is not to read a new bootstrap."""


class Roller:
    """Asks before a Deployment is applied.

    Args:
        parts: reads and applies.
        deploying: what the operator decides for all gateways; `deploy` changes it.
        clock: seconds, monotonic.
        again: asked to have a target provisioned again after some seconds.
        mark: asked to have targets provisioned now.
    """

    def __init__(
        self,
        parts: Parts,
        deploying: Deploying,
        clock: Callable[[], float],
        again: Callable[[Ref, float], None],
        mark: Callable[[Iterable[Ref]], None],
    ) -> None:
        self._parts, self._clock, self._again, self._mark = parts, clock, again, mark
        self._rolls = Rolls()
        self._stuck = False
        self._current: dict[Ref, str] = {}
        """The operator's change that each Deployment has had."""
        self.deploy(deploying)

    def deploy(self, deploying: Deploying) -> None:
        """The operator's part is another: all of it but the authorities can roll the pods of all gateways."""
        self._change = repr(replace(deploying, ca=""))

    def applied(self, target: Ref) -> None:
        """Its Deployment is as it is wanted."""
        self._current[target] = self._change

    def forget(self, target: Ref) -> None:
        """It has no gateway."""
        self._current.pop(target, None)
        self.give_up(target)

    def give_up(self, target: Ref) -> None:
        """Its pods are not to be replaced, or the apiserver did not take it."""
        self._rolls.end(target)
        self._let_others()

    def clear(self) -> None:
        """Another replica leads."""
        self._current.clear()
        self._rolls.clear()
        self._stuck = False

    async def may(self, target: Ref, deployment: Manifest) -> tuple[bool, Mapping[str, Found | None]]:
        """Whether a Deployment may be applied now; and by kind what there is, as far as it was read."""
        change = None if self._current.get(target) == self._change else self._change
        if self._rolls.waits(target, change, self._clock()):
            return False, {}
        found = await self._parts.get(deployment)
        seen = {"Deployment": found}
        if found is None or ending(found) or not ours(deployment, found) or not rolls(deployment, found):
            return True, seen
        return self._rolls.begin(target, change, self._clock(), well=rolled(found)), seen

    async def believe(self, made: Sequence[Manifest], held: dict[str, str]) -> None:
        """Give pods that are still to be replaced the authorities of now, with the bootstrap that they have."""
        (config,) = (one for one in made if one["kind"] == "ConfigMap")
        said = f"authorities {content(config)}"
        if held.get("ConfigMap") in {said, content(config)}:
            return
        found = await self._parts.get(config)
        if found is None or ending(found) or not ours(config, found):
            return
        there = found.get("data") or {}
        data = {name: there[name] for name in config["data"] if name in there} | {CA_FILE: config["data"][CA_FILE]}
        if any(there.get(name) != data[name] for name in data):
            await self._parts.apply(config | {"data": data})
        held["ConfigMap"] = said

    async def follow(self, target: Ref, deployment: Manifest) -> None:
        """See whether a gateway's pods have been replaced, and let others begin."""
        if target not in self._rolls:
            return
        found = await self._parts.get(deployment)
        if target not in self._rolls:
            return  # another replica leads by now
        if found is not None:
            self._rolls.came(target, (found.get("status") or {}).get("updatedReplicas", 0), self._clock())
        if found is None or rolled(found) or self._rolls.over(target, self._change, self._clock()):
            self._rolls.end(target)
        else:
            self._again(target, AGAIN_SECONDS)
        self._let_others()

    def resume(self, target: Ref, deployment: Found | None) -> None:
        """What a former leader began still counts."""
        if deployment is not None and rolling(deployment):
            self._rolls.resume(target, self._change, self._clock())
            self._again(target, AGAIN_SECONDS)

    def why(self) -> str | None:
        """What those who wait for it wait; of one that only waits for its turn nothing is said."""
        stuck = self._rolls.stuck(self._clock())
        if not stuck:
            return None
        text = f"new pods of {len(stuck)} gateways, one of them {stuck[0]}, do not become available"
        return f"{text}: until those do, or others are to be made, the pods here are kept as they are"

    def _let_others(self) -> None:
        stuck = len(self._rolls.stuck(self._clock()))
        if bool(stuck) == self._stuck:
            self._mark(self._rolls.next(self._clock()))
            return
        self._stuck = bool(stuck)
        if stuck:
            waiting = len(self._rolls.waiting)
            logger.error("new pods do not become available; no more are made", gateways=stuck, waiting=waiting)
        self._mark(self._rolls.waiting)  # to say so, or to go on
