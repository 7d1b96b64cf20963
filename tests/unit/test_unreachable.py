"""When it is said that Envoys cannot connect to a backend with TLS, and when that is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from translator import names
from translator.objects.ref import KSERVE, XDSERVE, Origin, Ref
from translator.plan import Backend, EndpointSource, Protocol, Tls
from xds.api.envoy.config.endpoint.v3 import ClusterStats, UpstreamLocalityStats
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest
from xds.loads import Loads, LoadSession
from xds.wire import encode
from xdserve.ledger import Ledger
from xdserve.unreachable import QUIET_SECONDS, Unreachable

IRIS = Ref(KSERVE, "InferenceService", "models", "iris")
POLICY = Ref(XDSERVE, "TrafficPolicy", "models", "iris")
GATEWAY = "models/iris"
TLS = Tls("iris-v2.models.svc", "PEM", "/ca.crt")
V2 = Backend("v2", Protocol.HTTPS, EndpointSource("models", "iris-v2", "https"), 2000, Origin(POLICY, "at"), tls=TLS)
PLAIN = replace(V2, name="plain", protocol=Protocol.HTTP, tls=None)


class Rig:
    """A target with backends, its Envoys, and what is said."""

    def __init__(self):
        self.now = 1000.0
        self.backends = {}
        self.loads = Loads(lambda gateway, cluster: True)
        self.ledger = Ledger(lambda: datetime.now(UTC), lambda ref: None)
        self._unreachable = Unreachable(
            lambda ref: self.backends if ref == IRIS else {}, self.loads, self.ledger, clock=lambda: self.now
        )
        self.plan(V2, PLAIN)

    def plan(self, *backends):
        self.backends = {backend.name: backend for backend in backends}
        self._unreachable.planned(IRIS)

    def envoy(self):
        """The stream of one more Envoy, which has told of its clusters once."""
        session = LoadSession(GATEWAY, self.loads, interval_seconds=10)
        report(session)
        return session

    @property
    def said(self):
        return [dated.entry for dated in self.ledger]


def report(session, backend="v2", **counted):
    figures = {f"total_{name}_requests": number for name, number in counted.items()}
    stats = ClusterStats(
        cluster_name=names.cluster(IRIS, backend), upstream_locality_stats=[UpstreamLocalityStats(**figures)]
    )
    session.receive(encode(LoadStatsRequest(cluster_stats=[stats])))


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def envoy(rig):
    return rig.envoy()


def test_a_backend_without_a_connection_is_said_with_what_is_expected_of_it(rig, envoy):
    report(envoy, error=9)
    (entry,) = rig.said
    assert (entry.object, entry.field, entry.reason, entry.condition) == (POLICY, "at", "BackendUnreachable", None)
    assert entry.message == (
        "Envoys cannot connect to backend v2 (Service models/iris-v2): connections are refused, or TLS handshakes "
        "fail; expected is a certificate for iris-v2.models.svc that the CA of its caRef has signed; "
        "the statistics cluster.models/iris/v2.ssl of Envoy tell more"
    )


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (replace(TLS, ca=None), "for iris-v2.models.svc that a CA in /ca.crt of the gateway's image has signed"),
        (replace(TLS, ca=None, verify=False), "any certificate would do"),
    ],
)
def test_what_is_expected_is_what_the_policy_says(rig, envoy, tls, words):
    rig.plan(replace(V2, tls=tls))
    report(envoy, error=9)
    assert words in rig.said[0].message


def test_it_is_said_once_until_an_answer_comes(rig, envoy):
    report(envoy, error=9)
    (before,) = rig.ledger
    rig.now += 10
    report(envoy, error=18)
    assert list(rig.ledger) == [before]
    report(envoy)
    assert list(rig.ledger) == [before]
    report(envoy, issued=1, successful=1)
    assert rig.said == []


@pytest.mark.parametrize(
    ("backend", "counted"),
    [
        ("plain", {"error": 9}),
        ("v2", {"issued": 9, "error": 9}),
        ("v2", {"issued": 1, "successful": 1, "error": 9}),
        ("stranger", {"error": 9}),
    ],
    ids=["plain text", "answers of 500", "some are answered", "no backend of the plan"],
)
def test_of_others_nothing_is_said(rig, envoy, backend, counted):
    report(envoy, backend)
    report(envoy, backend, **counted)
    assert rig.said == []


def test_one_envoy_of_several_that_fails_says_nothing(rig, envoy):
    other = rig.envoy()
    for _ in range(10):
        rig.now += 5
        report(envoy, issued=1, successful=1)
        rig.now += 5
        report(other, error=9)
    assert rig.said == []
    rig.now += QUIET_SECONDS
    report(other, error=9)
    assert len(rig.said) == 1


@pytest.mark.parametrize(
    "after", [(), (PLAIN,), (replace(V2, tls=replace(TLS, ca="another")),)], ids=["gone", "plain text", "another CA"]
)
def test_it_is_over_when_the_backend_is_gone_or_another(rig, envoy, after):
    report(envoy, error=9)
    rig.plan(*after)
    assert rig.said == []


def test_a_plan_that_leaves_the_backend_as_it_is_leaves_what_is_said(rig, envoy):
    report(envoy, error=9)
    rig.plan(V2)
    assert len(rig.said) == 1


def test_what_is_over_is_not_watched_any_more(rig, envoy):
    rig.plan()
    report(envoy, error=9)
    assert rig.said == []
    rig.plan(V2)
    report(envoy, error=9)
    assert len(rig.said) == 1
