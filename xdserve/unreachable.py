"""Backends with TLS that Envoys cannot connect to, by their load reports: nobody else sees a handshake fail.

Envoy counts a request that got no connection as an error that was never issued. The cause is not in a report: the
connection may be refused, or its TLS handshake fails. In plain text a backend is refused only while its pods go, so
there nothing is said; by TLS a wrong certificate or CA stays wrong until somebody mends it.

Each replica knows its own Envoys only. An Envoy without load reporting says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from translator import names
from translator.objects.ref import Ref
from translator.plan import Backend, EndpointSource, Finding, Reason, Tls
from xds.loads import Delta, Loads, Report
from xdserve.ledger import Ledger, entry

OWNER = "unreachable"

QUIET_SECONDS = 30.0
"""How long after a success failures say nothing: one Envoy of several may fail, or a pod is being replaced."""


@dataclass(slots=True)
class Watch:
    """A backend with TLS, and what reports said of it last."""

    backend: Backend
    succeeded: float | None = None
    failing: bool = False

    def take(self, delta: Delta, now: float) -> bool:
        """Take in what an Envoy says; True if it fails now and did not before, or the other way round."""
        before = self.failing
        if delta.successes:
            self.succeeded, self.failing = now, False
        elif delta.unconnected and (self.succeeded is None or now - self.succeeded > QUIET_SECONDS):
            self.failing = True
        return self.failing is not before


class Unreachable:
    """Tells the ledger of backends that Envoys cannot connect to, until one connects or the backend is another.

    What is kept is bounded by the plans, whatever clients report.

    Args:
        backends: the backends of a target, by name; none of one that has no gateway.
        loads: the load reports.
        ledger: is told.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        backends: Callable[[Ref], Mapping[str, Backend]],
        loads: Loads,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends, self._loads, self._ledger, self._clock = backends, loads, ledger, clock
        self._watched: dict[Ref, dict[str, Watch]] = {}
        self._leave: dict[Ref, Callable[[], None]] = {}

    def planned(self, owner: Ref) -> None:
        """An object was planned: watch its backends with TLS. What was said of one that is another now is over."""
        before = self._watched.get(owner, {})
        watched = {
            names.cluster(owner, name): Watch(backend)
            for name, backend in self._backends(owner).items()
            if backend.tls is not None
        }
        for cluster, watch in before.items():
            if cluster in watched and watched[cluster].backend == watch.backend:
                watched[cluster] = watch
        if watched:
            self._watched[owner] = watched
            if owner not in self._leave:
                self._leave[owner] = self._loads.subscribe(names.gateway(owner), partial(self._take, owner))
        elif before:
            del self._watched[owner]
            self._leave.pop(owner)()
        if any(watch.failing for watch in before.values()):
            self._say(owner)

    def _take(self, owner: Ref, report: Report) -> None:
        watched, now = self._watched[owner], self._clock()
        changed = [watch.take(delta, now) for delta in report.deltas if (watch := watched.get(delta.cluster))]
        if any(changed):
            self._say(owner)

    def _say(self, owner: Ref) -> None:
        failing = (watch.backend for watch in self._watched.get(owner, {}).values() if watch.failing)
        self._ledger.say((OWNER, owner), [entry(_finding(owner, backend)) for backend in failing])


def _finding(owner: Ref, backend: Backend) -> Finding:
    """It names no figures: it stays the same for as long as the backend cannot be reached."""
    source = backend.endpoints
    of = f" (Service {source.namespace}/{source.service})" if isinstance(source, EndpointSource) else ""
    message = (
        f"Envoys cannot connect to backend {backend.name}{of}: connections are refused, or TLS handshakes fail; "
        f"{_expected(backend.tls)}; the statistics cluster.{names.cluster(owner, backend.name)}.ssl of Envoy tell more"
    )
    return Finding(backend.origin, Reason.BACKEND_UNREACHABLE, message)


def _expected(tls: Tls | None) -> str:
    if tls is None or not tls.verify:
        return "any certificate would do"
    signer = f"a CA in {tls.ca_file} of the gateway's image" if tls.ca is None else "the CA of its caRef"
    return f"expected is a certificate for {tls.hostname} that {signer} has signed"
