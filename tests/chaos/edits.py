"""Random edits, each valid, and each such that every kind of request has a ready backend before and after it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from tests.chaos.world import CANARY_SHARE, PREDICTOR, Policy, predictor_service

APART = 0.1
"""Seconds from one file to another that needs the first, as pods take to start: files that are written at once may be
read in another order, and one that is gone is believed to be gone a moment later."""

_MOST_BACKENDS = 6
_MOST_CANARIES = 3


class Editor:
    """Makes edits of a world; every choice is the random numbers'."""

    def __init__(self, world, farm, rng, grace):
        self.made = Counter()
        self._world = world
        self._farm = farm
        self._rng = rng
        self._grace = grace
        self._names = 0
        self._edits = [
            *(self.weigh, self.add_backend, self.remove_backend, self.rename_backend, self.point_elsewhere),
            *(self.add_rule, self.remove_rule, self.move_endpoint, self.scale, self.toggle_ready),
            *(self.add_canary, self.remove_canary, self.promote, self.change_clusters, self.toggle_sticky),
            *(self.toggle_policy, self.rename_backend, self.add_backend, self.replace_all, self.bring_back),
        ]

    async def begin(self):
        """The first files: one predictor, no policy."""
        await self._service(predictor_service(None))
        self._world.put_inference_service()

    async def edit(self):
        """Make one edit that is possible now, and clear away what has been unused for long."""
        while not await (chosen := self._rng.choice(self._edits))():
            pass
        self.made[chosen.__name__] += 1
        await self.sweep()

    async def sweep(self):
        now = time.monotonic()
        self._world.sweep(now, self._grace)
        await self._farm.close_unused(self._world.processes(), now, self._grace)

    # -- Helpers -----------------------------------------------------------------------------------------------

    @property
    def _policy(self):
        return self._world.policy

    def _new(self, prefix):
        self._names += 1
        return f"{prefix}{self._names}"

    async def _service(self, name, count=1):
        """A Service that has endpoints; one that was left over is taken as it is."""
        if name not in self._world.services:
            self._world.services[name] = [(await self._farm.start(), True) for _ in range(count)]
            self._world.put_service(name)
            await asyncio.sleep(APART)

    def _weights(self, must=None):
        """A split of one to three backends that are ready."""
        found = [name for name in self._world.backends() if self._world.ready(name)]
        chosen = set(self._rng.sample(found, min(len(found), self._rng.randint(1, 3)))) | ({must} if must else set())
        weights = {name: self._rng.randint(0, 10) for name in sorted(chosen)}
        weights[must or self._rng.choice(sorted(chosen))] = 10
        return weights

    def _used_alone(self, service):
        """Whether some split would have nobody if the Service had no endpoint that is ready."""
        world = self._world
        others = {name for name in world.backends() if world.service_of(name) != service and world.ready(name)}
        splits = [[PREDICTOR], *((name for name, weight in one.items() if weight) for one in self._splits())]
        return any(others.isdisjoint(one) for one in splits)

    def _splits(self):
        return self._policy.splits() if self._policy else []

    def _used(self):
        """Services to which something leads."""
        return sorted({self._world.service_of(name) for name in self._world.backends()} & self._world.services.keys())

    # -- Policy ------------------------------------------------------------------------------------------------

    async def weigh(self):
        """Other weights for everything."""
        if not self._policy:
            return False
        self._policy.split = self._weights() if self._rng.random() < 0.8 else None
        for kind in self._policy.rules:
            self._policy.rules[kind] = self._weights()
        self._world.put_policy()
        return True

    async def add_backend(self):
        """A backend with a Service and processes of its own."""
        if not self._policy or len(self._policy.backends) >= _MOST_BACKENDS:
            return False
        name, service = self._new("b"), self._new("pool-")
        await self._service(service, self._rng.randint(1, 2))
        self._policy.backends[name] = service
        self._policy.split = self._weights(must=name)
        self._world.put_policy()
        return True

    async def remove_backend(self):
        """A backend goes; its Service stays for a while."""
        if not self._policy or not self._policy.backends:
            return False
        self._drop(self._rng.choice(list(self._policy.backends)))
        self._world.put_policy()
        return True

    def _drop(self, name):
        del self._policy.backends[name]
        if self._policy.split and name in self._policy.split:
            self._policy.split = self._weights()
        for kind, weights in self._policy.rules.items():
            if name in weights:
                self._policy.rules[kind] = self._weights()

    async def rename_backend(self):
        """The same Service under another name: one cluster goes, one comes, in one edit."""
        if not self._policy or not self._policy.backends:
            return False
        old, new = self._rng.choice(list(self._policy.backends)), self._new("b")

        def renamed(of):
            return {new if name == old else name: value for name, value in of.items()}

        self._policy.backends = renamed(self._policy.backends)
        self._policy.split = renamed(self._policy.split) if self._policy.split else None
        self._policy.rules = {kind: renamed(weights) for kind, weights in self._policy.rules.items()}
        self._world.put_policy()
        return True

    async def point_elsewhere(self):
        """The same name, another Service."""
        if not self._policy or not self._policy.backends:
            return False
        service = self._new("pool-")
        await self._service(service)
        self._policy.backends[self._rng.choice(list(self._policy.backends))] = service
        self._world.put_policy()
        return True

    async def bring_back(self):
        """A name that went a moment ago comes again, with another Service: its cluster may still linger."""
        if not self._policy or not self._policy.backends or self._rng.random() < 0.5:
            return False
        name, service = self._rng.choice(list(self._policy.backends)), self._new("pool-")
        await self._service(service)
        self._drop(name)
        self._world.put_policy()
        self._policy.backends[name] = service
        self._policy.split = self._weights(must=name)
        self._world.put_policy()
        return True

    async def replace_all(self):
        """Every backend is another one than before, and so is every route."""
        if not self._policy:
            return False
        names = [(self._new("b"), self._new("pool-")) for _ in range(2)]
        for _, service in names:
            await self._service(service)
        self._policy.backends = dict(names)
        (one, _), (two, _) = names
        self._policy.split = {one: self._rng.randint(1, 9), two: 1}
        self._policy.rules = {kind: {self._rng.choice([one, two]): 1} for kind in self._policy.rules}
        self._world.put_policy()
        return True

    async def add_rule(self):
        """A rule for one kind of request, before or after the other."""
        if not self._policy or len(self._policy.rules) == 2:
            return False
        kind = self._rng.choice([kind for kind in ("tester", "beta") if kind not in self._policy.rules])
        added, rest = {kind: self._weights()}, self._policy.rules
        self._policy.rules = added | rest if self._rng.random() < 0.5 else rest | added
        self._world.put_policy()
        return True

    async def remove_rule(self):
        if not self._policy or not self._policy.rules:
            return False
        del self._policy.rules[self._rng.choice(list(self._policy.rules))]
        self._world.put_policy()
        return True

    async def change_clusters(self):
        """A field of every cluster: all of them warm anew."""
        if not self._policy:
            return False
        self._policy.connect = self._rng.randint(1000, 5000)
        self._world.put_policy()
        return True

    async def toggle_sticky(self):
        if not self._policy:
            return False
        self._policy.sticky = not self._policy.sticky
        self._world.put_policy()
        return True

    async def toggle_policy(self):
        """Without a policy the InferenceService's own fields count."""
        if self._policy and self._rng.random() < 0.7:
            return False
        self._world.policy = None if self._policy else Policy()
        self._world.put_policy()
        if not self._policy:
            await asyncio.sleep(APART)
        return True

    # -- Endpoints ---------------------------------------------------------------------------------------------

    async def move_endpoint(self):
        """Another process takes over: another port."""
        service = self._rng.choice(self._used())
        found = self._world.services[service]
        at = self._rng.randrange(len(found))
        found[at] = (await self._farm.start(), found[at][1])
        self._world.put_service(service)
        return True

    async def scale(self):
        """One endpoint more, or one less."""
        service = self._rng.choice(self._used())
        found = self._world.services[service]
        if len(found) < 2:
            found.append((await self._farm.start(), True))
        else:
            gone = self._rng.randrange(len(found))
            if not any(ready for at, (_, ready) in enumerate(found) if at != gone):
                return False
            del found[gone]
        self._world.put_service(service)
        return True

    async def toggle_ready(self):
        """A backend loses all its ready endpoints where others can take over, or gets them back."""
        service = self._rng.choice(self._used())
        found = self._world.services[service]
        ready = any(state for _, state in found)
        if ready and self._used_alone(service):
            return False
        self._world.services[service] = [(process, not ready) for process, _ in found]
        self._world.put_service(service)
        return True

    # -- InferenceService --------------------------------------------------------------------------------------

    async def add_canary(self):
        if len(self._world.canaries) >= _MOST_CANARIES:
            return False
        name = self._new("c")
        await self._service(predictor_service(name))
        self._world.canaries[name] = self._rng.choice([0, CANARY_SHARE, 2 * CANARY_SHARE])
        self._world.put_inference_service()
        return True

    async def remove_canary(self):
        """A canary goes that no policy names."""
        return self._take_canary() is not None and self._put_inference_service()

    async def promote(self):
        """A canary becomes what is stable: the predictor's cluster gets other endpoints."""
        name = self._take_canary(ready=True)
        if name is None:
            return False
        self._world.predictor = name
        return self._put_inference_service()

    def _take_canary(self, *, ready=False):
        named = self._policy.names() if self._policy else set()
        free = [name for name in self._world.canaries if name not in named and (self._world.ready(name) or not ready)]
        if not free:
            return None
        name = self._rng.choice(free)
        del self._world.canaries[name]
        return name

    def _put_inference_service(self):
        self._world.put_inference_service()
        return True
