"""What users and controllers write: an InferenceService with canaries, a TrafficPolicy, Services with endpoints.

Each `put` writes one file of the directory, by a rename, and says so to the history. What refers to something is
written after it and goes before it, and what nothing refers to any more stays for a while, as pods do.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from tests.support.documents import endpoints, entrance, isvc, policy, service, split, to_service

PREDICTOR = "predictor"
CANARY_SHARE = 15
"""Percent of each canary."""

_MATCHES = {
    "tester": [{"headers": [{"name": "x-tester", "value": "true"}]}],
    "beta": [{"path": {"type": "PathPrefix", "value": "/v1/models/beta"}}],
}


@dataclass
class Policy:
    """A TrafficPolicy: Services by backend, weights by backend (None: the target's own), weights by rule."""

    backends: dict = field(default_factory=dict)
    split: dict | None = None
    rules: dict = field(default_factory=dict)
    sticky: bool = True
    connect: int = 2000

    def splits(self):
        return [*([self.split] if self.split else []), *self.rules.values()]

    def names(self):
        """The backends that get requests."""
        return {name for weights in self.splits() for name in weights}


class World:
    """The state of the directory. `services` are lists of (process, ready) by the name of a Service."""

    def __init__(self, folder, port, history):
        self.services = {}
        self.predictor = None
        """The name of the InferenceService's predictor: which Service is stable."""
        self.canaries = {}
        """Percentages by name."""
        self.policy = None
        self.edits = 0
        """Files written."""
        self.files = {}
        """The documents by file."""
        self._folder = folder
        self._port = port
        self._history = history
        self._editions = 0
        self._edition = ""
        self._unused_since = {}

    # -- Names -------------------------------------------------------------------------------------------------

    def service_of(self, backend):
        """The Service of a backend, as the planner would find it."""
        if backend == PREDICTOR:
            return predictor_service(self.predictor)
        if backend in self.canaries:
            return predictor_service(backend)
        return self.policy.backends[backend]

    def backends(self):
        """All that a split may name."""
        return [PREDICTOR, *self.canaries, *(self.policy.backends if self.policy else ())]

    def ready(self, backend):
        """The names of the ready processes of a backend."""
        return {process.name for process, ready in self.services.get(self.service_of(backend), ()) if ready}

    # -- What it means -----------------------------------------------------------------------------------------

    def _routes(self):
        shares = {name: share for name, share in self.canaries.items() if self.ready(name)}
        own = {PREDICTOR: 100 - sum(shares.values()), **shares}
        default = (self.policy.split if self.policy else None) or own
        rules = self.policy.rules if self.policy else {}
        splits = {kind: rules.get(kind, default) for kind in ("plain", "tester", "beta")}
        splits["component"] = {PREDICTOR: 1}
        return {kind: self._getting(weights) for kind, weights in splits.items()}

    def _getting(self, weights):
        return {name for name, weight in weights.items() if weight and self.ready(name)}

    # -- Files -------------------------------------------------------------------------------------------------

    def put_service(self, name):
        """Write a Service and its slices."""
        slices = [
            endpoints(name, process.port, number=number, ready=ready)
            for number, (process, ready) in enumerate(self.services[name])
        ]
        self._put(f"services/{name}.yaml", [service(name), *slices])

    def put_inference_service(self):
        canary = [{"trafficPercent": share, "predictor": {"name": name}} for name, share in self.canaries.items()]
        named = {"name": self.predictor} if self.predictor else {}
        self._put("iris.yaml", [isvc(predictor=named, canary=canary), entrance(self._port)])

    def put_policy(self):
        """Write the policy under an edition of its own, or take it away."""
        if self.policy is None:
            self._edition = ""
            self._remove("policy.yaml")
            return
        self._editions += 1
        self._edition = f"edition-{self._editions}" if self.policy.sticky else ""
        self._put("policy.yaml", [self._policy()])

    def _policy(self):
        found = self.policy
        rules = [
            {"name": kind, "matches": _MATCHES[kind], "split": split(**weights)}
            for kind, weights in found.rules.items()
        ]
        spec = {"backends": [to_service(name, target) for name, target in found.backends.items()], "rules": rules}
        if found.split:
            spec["split"] = split(**found.split)
        if found.sticky:  # the name of the cookie tells which edition an answer is of
            spec["sticky"] = {"by": "Cookie", "name": self._edition}
        return policy(**spec, timeouts={"connect": f"{found.connect}ms"})

    def _put(self, file, documents):
        path = self._folder / file
        path.parent.mkdir(exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text("---\n".join(f"{json.dumps(one)}\n" for one in documents))
        self.files[file] = documents
        self._write(lambda: new.replace(path))

    def _remove(self, file):
        del self.files[file]
        self._write((self._folder / file).unlink)

    def _write(self, how):
        places = {name: frozenset(self.ready(name)) for name in self.backends()}
        self._history.record(self._routes(), places, self._edition, time.monotonic())
        how()
        self._history.written(time.monotonic())
        self.edits += 1

    # -- What is not needed any more ---------------------------------------------------------------------------

    def sweep(self, now, grace):
        """Take away Services to which nothing leads for `grace` seconds; one may be needed again until then."""
        used = {self.service_of(backend) for backend in self.backends()}
        for name in list(self.services):
            if name in used:
                self._unused_since.pop(name, None)
            elif now - self._unused_since.setdefault(name, now) > grace:
                del self.services[name], self._unused_since[name]
                self._remove(f"services/{name}.yaml")

    def processes(self):
        """The names of all processes that an endpoint names."""
        return {process.name for found in self.services.values() for process, _ in found}


def predictor_service(name):
    """The Service that KServe makes for a predictor of a name, or of none."""
    return f"iris-{name}-predictor" if name else "iris-predictor"
