"""What an earlier program had in force stands in for what is invalid or unreadable, and for nothing else."""

from __future__ import annotations

import pytest

import xdserve.pipeline
from tests.unit.pipeline import documents as d
from tests.unit.pipeline.recorder import SOURCE, Run, made
from translator.objects import Ref
from translator.planners.components import ActiveComponents
from xdserve.sources import Broken, Put

IRIS = Ref("serving.kserve.io", "InferenceService", "models", "iris")
POLICY = Ref("xdserve.io", "TrafficPolicy", "models", "iris")
GATEWAY = "models/iris"
SERVED = (*d.served("iris", "10.0.0.1"), d.service("v2"), d.endpoint_slice("v2", {"10.0.0.2": True}))
OWN, TENTH = {"predictor": 1}, {"predictor": 90, "v2": 10}


def split(weight, *, other="v2", backends=("v2",), name="iris"):
    shares = [{"backend": "predictor", "weight": 100 - weight}, {"backend": other, "weight": weight}]
    listed = [d.backend(backend, backend) for backend in backends]
    return d.policy(name, d.KSERVE, target_name="iris", backends=listed, split=shares)


BAD = split(50, other="v9")


def restarted(policy=None):
    """A pipeline after one that had a policy of `iris` in force."""
    run = Run()
    run.pipeline.remember({IRIS: made(policy or split(10))}, {IRIS: ActiveComponents("predictor", "iris-predictor")})
    return run


@pytest.fixture
def run():
    return restarted()


def puts(*documents):
    return [Put(made(document), SOURCE) for document in documents]


def test_a_policy_that_is_invalid_is_replaced(run):
    run.put(*SERVED, BAD)
    assert run.split(GATEWAY) == TENTH
    assert run.reasons()[str(IRIS)] == [
        "Invalid TrafficPolicy models/iris: spec.split[1].backend: found v9, allowed predictor, v2"
    ]
    run.put(split(30))
    assert run.split(GATEWAY) == {"predictor": 70, "v2": 30}
    run.put(BAD)
    assert run.split(GATEWAY) == {"predictor": 70, "v2": 30}


def test_one_that_is_unreadable_is_put_as_it_was(run):
    run.apply([*puts(*SERVED), Broken(POLICY, (), SOURCE)])
    assert run.split(GATEWAY) == TENTH
    assert run.reasons() == {}
    assert POLICY in run.pipeline.objects
    assert run.pipeline.drain() == []


def test_it_is_read_leniently():
    run = restarted(split(10, other="predictor2", backends=("predictor2",)))
    run.apply([*puts(*d.served("iris", "10.0.0.1")), Broken(POLICY, (), SOURCE)])
    assert run.split(GATEWAY) == OWN


def test_a_valid_one_replaces_it(run):
    run.put(*SERVED, split(20))
    assert run.split(GATEWAY) == {"predictor": 80, "v2": 20}
    assert run.pipeline.drain() == [IRIS]


def test_an_equal_one_is_no_change(run):
    run.put(*SERVED, split(10))
    run.pipeline.settle()
    assert run.pipeline.drain() == []
    assert run.pipeline.accepted(IRIS) == made(split(10))


def test_one_that_is_gone_does_not_come_back(run):
    run.put(*SERVED)
    assert run.split(GATEWAY) == OWN
    assert run.pipeline.drain() == [IRIS]
    assert run.pipeline.accepted(IRIS) is None
    run.broken(POLICY)
    run.put(BAD)
    assert run.split(GATEWAY) == OWN


def test_nor_one_that_went_before_it_was_broken(run):
    run.gone(POLICY)
    run.apply([*puts(*SERVED), Broken(POLICY, (), SOURCE)])
    assert run.split(GATEWAY) == OWN


def test_another_policy_is_not_replaced_by_it(run):
    run.put(*SERVED, split(50, other="v9", name="another"))
    assert run.split(GATEWAY) == OWN


def test_it_waits_for_its_target(run):
    run.apply([*puts(*SERVED[1:], BAD), Broken(IRIS, (), SOURCE)])
    assert GATEWAY not in run.said.scopes
    assert run.pipeline.drain() == []
    assert run.pipeline.accepted(IRIS) == made(split(10))
    run.put(SERVED[0])
    assert run.split(GATEWAY) == TENTH


def test_a_target_that_is_gone_takes_it_along(run):
    run.put(*SERVED[1:], BAD)
    run.pipeline.settle()
    assert run.pipeline.drain() == [IRIS]
    assert run.pipeline.accepted(IRIS) is None
    run.put(SERVED[0])
    assert run.split(GATEWAY) == OWN


def test_a_fault_of_ours_does_not_lose_it(run, monkeypatch):
    real = xdserve.pipeline.plan

    def plan(*_):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(xdserve.pipeline, "plan", plan)
    run.put(*SERVED, BAD)
    monkeypatch.setattr(xdserve.pipeline, "plan", real)
    run.put(split(60, other="v8"))
    assert run.split(GATEWAY) == TENTH


def test_each_change_is_told_once(run):
    run.put(*SERVED, split(10))
    for document, changed in ((split(20), True), (split(20), False), (BAD, False), (split(30), True)):
        run.put(document)
        assert run.pipeline.drain() == [IRIS] * changed
    run.gone(POLICY)
    assert run.pipeline.drain() == [IRIS]
    run.put(split(10))
    run.gone(IRIS)
    assert run.pipeline.drain() == [IRIS]
    assert run.pipeline.accepted(IRIS) is None


def test_without_anybody_who_asks_nothing_is_collected():
    run = Run()
    run.put(*SERVED, split(10))
    run.pipeline.settle()
    assert run.pipeline.drain() == []
