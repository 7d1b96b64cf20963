"""What an Envoy of a random life must have when nothing happens any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.model_bodies import CLUSTER, ENDPOINT, LISTENER, ROUTE
from tests.support.model_envoy import ModelEnvoy
from xds.session import Variant

if TYPE_CHECKING:
    from tests.session.life import Life, Seat

TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)


@dataclass
class Rest:
    """What an Envoy must have when nothing happens any more."""

    life: Life
    seat: Seat

    def check(self):
        if self.envoy.withholds_first():
            return
        for type_ in TYPES:
            if not self._kept_as_it_is(type_):
                for name in self.names(type_):
                    self._same(type_, name)
                self._left_over(type_)
        for type_, name in self.envoy.awaited:
            self._answered(type_, name)

    def _kept_as_it_is(self, type_):
        """Nobody can judge what it has of an earlier stream, and all there is would take it away."""
        session = self.seat.session
        return session._would_empty(session._substream(type_))

    def _refuses(self, type_, name, served):
        """It refused what another Envoy has, and nothing else is good."""
        told = self.life.told.get((self.envoy.node_id, type_, name, served.version))
        known = self.seat.session._substream(type_).surely_refused(name, served.version)
        return told is True or known or served.version in self.envoy.refused.get((type_, name), ())

    @property
    def envoy(self) -> ModelEnvoy:
        return self.seat.envoy

    def names(self, type_) -> Iterable[str]:
        if type_ in {CLUSTER, LISTENER}:
            return set(self.life.scope.names(type_)) if self.envoy.ready or type_ is CLUSTER else ()
        return self.envoy.subscribed[type_]

    def _same(self, type_, name):
        served, wanted = self.life.scope.get(type_, name), self.life.scope.wanted(type_, name)
        has = self.envoy.versions(type_).get(name)
        if served is None or has == served.version:
            return
        if self._refuses(type_, name, served) or self._tells_otherwise(type_, name, served):
            return
        took = wanted is not None and has == wanted.version
        if type_ is CLUSTER and self._withholds(name, served):
            return
        assert took or self._held_back(type_, served), (
            f"{self.envoy.node_id}: {type_.short} {name}: has {has}, is served {served.version}"
        )

    def _tells_otherwise(self, type_, name, served):
        """It came back with the version before what it took of a response whose refusal was lost with its stream."""
        return self._untold(type_, name) and self.envoy.said[type_].get(name) == served.version

    def _untold(self, type_, name):
        """It took it of a response that it refused otherwise, and has said neither: docs/adr/0005."""
        return self.envoy.variant is Variant.DELTA and (type_, name) in self.envoy.untold

    def _held_back(self, type_, served):
        """A route to a cluster that cannot warm, or of which the server cannot know that it is warm."""
        waits = self._kept_as_it_is(CLUSTER) or any(self._cold(name) or self._lacks(name) for name in served.uses)
        return type_ is ROUTE and waits

    def _withholds(self, cluster, served):
        """It may have refused the cluster with others of the response, and cannot say so while one warms."""
        has = self.envoy.versions(CLUSTER).get(cluster)
        untold = (CLUSTER, cluster, served.version) in self.seat.session.unanswered()
        return bool(self.envoy.warming) and has != served.version and untold

    def _lacks(self, cluster):
        served = self.life.scope.get(CLUSTER, cluster)
        return served is not None and (self._refuses(CLUSTER, cluster, served) or self._withholds(cluster, served))

    def _cold(self, cluster):
        held = self.envoy.held[CLUSTER].get(cluster)
        untold = bool(held and held.body.health) or (ENDPOINT, cluster) in self.envoy.refused
        return bool(self.envoy.warming) and (cluster in self.envoy.warming or untold)

    def _left_over(self, type_):
        for name in self.envoy.held[type_].keys() - set(self.life.scope.names(type_)):
            wanted = self.life.scope.wanted(type_, name) is not None
            kept = wanted or self._needed(type_, name) or self._cannot_say(type_, name)
            assert kept or self._untold(type_, name), f"{self.envoy.node_id}: {type_.short} {name} is left over"

    def _cannot_say(self, type_, name):
        """It refused the response that took the name away, and holds back its answer while clusters warm."""
        flights = self.seat.session._substream(type_).flights
        return type_ is CLUSTER and bool(self.envoy.warming) and any(name in flight.removed for flight in flights)

    def _needed(self, type_, name):
        if type_ is CLUSTER:
            return self._may_be_used()
        if type_ is ENDPOINT:
            return name in self.envoy.held[CLUSTER]
        return type_ is ROUTE and self.envoy.variant is Variant.SOTW

    def _may_be_used(self):
        """Whether the Envoy may run routes that are not those served: they may use any cluster."""
        routes = self.envoy.versions(ROUTE)
        served = {name: self.life.scope.get(ROUTE, name) for name in routes}
        refused = any(type_ is ROUTE for type_, _ in self.envoy.refused)
        return refused or any(found is None or found.version != routes[name] for name, found in served.items())

    def _answered(self, type_, name):
        served = self.life.scope.get(type_, name)
        if type_ is CLUSTER and self.envoy.warming:
            return  # it cannot ask yet
        if served is None:
            wanted = self.life.scope.wanted(type_, name) is not None
            silent = self.envoy.variant is Variant.SOTW and (wanted or type_ is not ENDPOINT)
            waits = name in self.envoy.held[type_] and (wanted or self._needed(type_, name))
            assert silent or waits, f"{self.envoy.node_id}: {type_.short} {name} is not there, and nobody said so"
        else:
            held_back = self._held_back(type_, served) or self._refuses(type_, name, served)
            assert held_back or self._kept_as_it_is(type_), (
                f"{self.envoy.node_id}: {type_.short} {name} was never answered"
            )
