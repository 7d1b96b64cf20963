"""Who may have a name that the gateways of several targets would have."""

from __future__ import annotations

from bootstrap.manifests import Owner
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan
from translator.planners.edge import DEFAULT_EDGE
from xdserve.kube import holders
from xdserve.kube.holders import Holders
from xdserve.kube.wanted import Wanted

PLACE = ("models", "iris-gateway")


def of(kind, name="iris", port=8080):
    ref = Ref("serving.kserve.io", kind, "models", name)
    return ref, Wanted(
        Owner(ref, "v1", "uid"), GatewayPlan(f"models/{name}", "::", port, 0, Origin(ref, ""), edge=DEFAULT_EDGE)
    )


def test_the_first_has_it_and_the_next_when_that_wants_none():
    known = Holders()
    (first, wanted), (second, others), (third, its) = of("InferenceService"), of("Inference"), of("Service")
    assert known.holder(PLACE) is None
    assert known.want(first, wanted) == [first]
    assert known.want(second, others) == [second]
    assert known.want(third, its) == [third]
    assert known.holder(PLACE) == first
    assert known.want(first, of("InferenceService", port=9090)[1]) == [first]
    assert known.want(third, None) == [third], "who had it goes on"
    assert known.want(first, None) == [second, first], "the next may have it now"
    assert known.holder(PLACE) == second
    assert known.want(second, None) == [second]
    assert known.holder(PLACE) is None
    assert not known


def test_what_is_wanted_already_changes_nothing():
    known, (ref, wanted) = Holders(), of("InferenceService")
    assert known.want(ref, None) == []
    known.want(ref, wanted)
    assert known.want(ref, wanted) == []


def test_who_goes_is_looked_for_among_none_of_the_others(monkeypatch):
    """A CRD is deleted, and thousands go in one turn: streams and probes must not wait for them."""
    known = Holders()
    many = [of("InferenceService", f"iris-{number}") for number in range(50)]
    for ref, wanted in many:
        known.want(ref, wanted)
    named = []
    monkeypatch.setattr(holders.names, "entrance", lambda ref: named.append(ref) or f"{ref.name}-gateway")
    for ref, _ in many:
        known.want(ref, None)
    assert len(named) == len(many)
