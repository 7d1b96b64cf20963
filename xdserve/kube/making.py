"""Makes one gateway's objects, takes them away, and knows which of them are as they are wanted.

What was applied is remembered by its content, so that what is unchanged costs no request. Whose turn it is, what is
tried again and what is told of it is decided by `xdserve.kube.provision`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

import structlog

from bootstrap.manifests import Manifest, labels
from translator import names
from translator.objects.ref import Ref
from xdserve.kube.parts import KINDS, LISTED, Parts, Trouble
from xdserve.kube.rolling import AGAIN_SECONDS, ROLLED, Roller
from xdserve.kube.wanted import (
    Found,
    content,
    ending,
    key,
    leads_elsewhere,
    ours,
    possible,
    same,
    target_of,
    tells_of,
    title,
    version,
)

logger = structlog.get_logger("xdserve.provision")

LOOKS_A_CONFIG = 10
"""Looks until each ConfigMap has been read once: they are read one by one, and running Envoys need none."""
_MOST_CHANGES = 5
"""Times that an object may have changed since it was read, before its deletion is tried later."""
_ALWAYS_READ = frozenset({"Service", "Deployment"})
_NOTHING: Mapping[str, Found | None] = {}


class Maker:
    """Works on one gateway at a time each, on several together.

    Args:
        parts: reads, applies and deletes.
        roller: says when pods may be replaced.
        release: whose gateways these are.
        listens: whether the Envoys of a target's gateway listen at a port.
        again: asked to have a target provisioned again after some seconds.
    """

    def __init__(
        self,
        parts: Parts,
        roller: Roller,
        release: str,
        listens: Callable[[Ref, int], bool],
        again: Callable[[Ref, float], None],
    ) -> None:
        self._parts, self._roller, self._release = parts, roller, release
        self._listens, self._again = listens, again
        self.done: set[Ref] = set()
        """Targets whose gateways are as they are wanted."""
        self.waiting: set[Ref] = set()
        """Those whose Service leads elsewhere until their Envoys listen where it is to lead."""
        self._applied: dict[Ref, dict[str, str]] = {}
        self._services: dict[Ref, str] = {}
        """The version that each entrance had when it was as wanted."""

    def __len__(self) -> int:
        return len(self._applied)

    def clear(self) -> None:
        """Another replica leads, and may write."""
        for known in (self._applied, self._services, self.done, self.waiting, self._roller):
            known.clear()

    def forget(self, target: Ref) -> None:
        """It has no gateway."""
        for known in (self._applied, self._services):
            known.pop(target, None)
        self._roller.forget(target)

    def failed(self, target: Ref) -> None:
        """Not all could be made."""
        if not self._applied.get(target, {}).get("Deployment"):
            self._roller.give_up(target)

    def entrance(self, target: Ref, service: str | None) -> bool:
        """Whether a gateway's Service, which is there in another version or (None) gone, has to be looked at."""
        if target not in self._applied or self._services.get(target) == service:
            return False
        self._applied[target].pop("Service", None)
        return True

    # -- Made ----------------------------------------------------------------------------------------------------

    async def make(self, target: Ref, port: int, made: Sequence[Manifest]) -> str | None:
        """Make a gateway of these objects, as far as that can be now; what it has to wait for.

        Raises:
            Trouble: it cannot be made.
        """
        held = self._applied.setdefault(target, {})
        told = await self._bring_all(target, port, made, held)
        for kind in held.keys() - {one["kind"] for one in made}:
            await self._remove(kind, target)
            del held[kind]
        if not told:
            self.done.add(target)
        await self._roller.follow(target, made[-1])
        return next(filter(None, told), None)

    async def _bring_all(
        self, target: Ref, port: int, made: Sequence[Manifest], held: dict[str, str]
    ) -> list[str | None]:
        """What kept some from being brought; None for what needs no word."""
        told: list[str | None] = []
        free, seen = True, _NOTHING
        if held.get("Deployment") != content(made[-1]):
            free, seen = await self._roller.may(target, made[-1])
        if not free:
            await self._roller.believe(made, held)
            told.append(self._roller.why())
            made = [one for one in made if one["kind"] not in ROLLED]
        for one in made:
            if held.get(one["kind"]) == content(one) or await self._bring(target, port, one, held, seen):
                continue
            held.pop(one["kind"], None)
            told.append(f"{title(one)} is being deleted; it is made anew when it is gone")
            self._again(target, AGAIN_SECONDS)
        return told

    async def _bring(
        self, target: Ref, port: int, wanted: Manifest, held: dict[str, str], seen: Mapping[str, Found | None]
    ) -> bool:
        """Apply a manifest, if what there is is another; never over what is somebody else's. Not over what is going."""
        kind, found = wanted["kind"], None
        if kind not in held or kind in _ALWAYS_READ:
            found = seen[kind] if kind in seen else await self._parts.get(wanted)
            if found is not None and not ours(wanted, found):
                raise Trouble(f"{title(wanted)} is there already, and is not xdserve's")
            if found is not None and ending(found):
                return False
            if found is not None and same(wanted, found):
                self._has(target, wanted, found, held)
                return True
            if found is not None and leads_elsewhere(wanted, found) and not self._listens(target, port):
                self.waiting.add(target)
                return True
        fitting = wanted if found is None else possible(wanted, found)
        self._has(target, wanted, await self._parts.apply(fitting), held)
        logger.info("applied", object=title(wanted))
        return True

    def _has(self, target: Ref, wanted: Manifest, found: Found, held: dict[str, str]) -> None:
        """An object is as it is wanted."""
        held[wanted["kind"]] = content(wanted)
        if wanted["kind"] == "Service":
            self._services[target] = version(found)
        if wanted["kind"] == "Deployment":
            self._roller.applied(target)

    # -- Taken away ----------------------------------------------------------------------------------------------

    async def take_away(self, target: Ref) -> None:
        """Delete all that there is of a gateway.

        Raises:
            Trouble: it cannot be deleted.
        """
        for kind in reversed(KINDS):
            await self._remove(kind, target)
        self.forget(target)

    async def _remove(self, kind: str, target: Ref) -> None:
        """Delete an object of a target, if it is there, ours and still this target's."""
        metadata = {"namespace": target.namespace, "name": names.entrance(target)}
        shape: Manifest = {
            "kind": kind,
            "metadata": metadata | {"labels": labels(target, self._release)},
        }
        for _ in range(_MOST_CHANGES):
            found = await self._parts.get(shape)
            if found is None or ending(found) or not ours(shape, found) or target_of(found) != target:
                return
            if await self._parts.delete(shape, found):  # not if it has just become another target's
                logger.info("deleted", object=title(shape))
                return
        raise Trouble(f"{title(shape)} changes too often to be deleted")

    # -- Compared ------------------------------------------------------------------------------------------------

    def compare(
        self,
        target: Ref,
        made: Sequence[Manifest],
        found: Mapping[tuple[str, str, str], Found],
        *,
        looks: int,
        trust: bool,
    ) -> bool:
        """Whether a gateway is as wanted. No ConfigMap is listed: see `_held_config`.

        Args:
            target: whose it is.
            made: the objects that it is to have.
            found: those that there are, by `key`.
            looks: how often all gateways have been looked at.
            trust: whether what the objects say is all that is known of them.
        """
        seen = {one["kind"]: found.get(key(one)) for one in made}
        held = self._held_config(target, made, seen, looks=looks, trust=trust)
        for one in made:
            there = seen[one["kind"]]
            if one["kind"] not in LISTED or there is None or not ours(one, there) or ending(there):
                continue
            if same(one, there):
                self._has(target, one, there, held)
            else:
                held[one["kind"]] = ""
        if not looks:
            self._roller.resume(target, seen["Deployment"])
        for kind in KINDS:  # one replica has no budget; one that is left over goes
            there = found.get((kind, *key(made[0])[1:]))
            if kind not in seen and there is not None:
                held[kind] = ""
        self._applied[target] = held
        if held != {one["kind"]: content(one) for one in made}:
            return False
        self.done.add(target)
        return True

    def _held_config(
        self, target: Ref, made: Sequence[Manifest], seen: Mapping[str, Found | None], *, looks: int, trust: bool
    ) -> dict[str, str]:
        """What is known of the ConfigMap, by its kind: at first by the Deployment. Nothing if it is to be read."""
        (config,) = (one for one in made if one["kind"] == "ConfigMap")
        if trust:
            return {"ConfigMap": content(config)} if tells_of(seen["Deployment"], config) else {}
        before = self._applied.get(target, {}).get("ConfigMap")
        whole = all(there for kind, there in seen.items() if kind in LISTED)
        due = crc32(target.name.encode()) % LOOKS_A_CONFIG == looks % LOOKS_A_CONFIG
        return {"ConfigMap": before} if before and whole and not due else {}
