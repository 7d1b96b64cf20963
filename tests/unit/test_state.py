"""What /debug/status says of objects that planning or an older one keeps from being in force."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.documents import backend, isvc, policy, split, to_service
from translator.objects import parse
from translator.planners.options import Options
from xds.memory import Refusal, Rejection
from xds.server import Server
from xds.session import Terms
from xds.types import ResourceType
from xdserve import pipeline as pipelines
from xdserve.ledger import Ledger, Place, entry
from xdserve.metrics import Metrics
from xdserve.observer import StreamObserver
from xdserve.pipeline import Pipeline
from xdserve.rejections import Rejections
from xdserve.sources import Put, Source
from xdserve.state import ProgramState


class Program:
    """The parts that a state is read from, without a port."""

    def __init__(self):
        self.place = Place("a.yaml", 1)
        self.ledger = Ledger(lambda: datetime.now(UTC), lambda ref: self.place)
        metrics = Metrics(process=False)
        self.rejections = Rejections(self.ledger, metrics, lambda: datetime.now(UTC))
        observer = StreamObserver(metrics, lambda gateway: None, self.rejections.say)
        self.server = Server(Terms(identifier="test", linger=0), observer)
        self.pipeline = Pipeline(Options(), self.server, self)
        self.state = ProgramState(self.pipeline, self.server, self.ledger, self.rejections, lambda: "")

    def found(self, owner, findings):
        self.ledger.say(owner, [entry(finding) for finding in findings])

    def failed(self, service, error):
        pass

    def put(self, *documents):
        self.pipeline.apply([Put(parse(document), Source("a.yaml", 1)) for document in documents])
        while self.pipeline.run():
            pass

    def condition(self, name, kind):
        (found,) = [one for one in self.state.status() if one["object"] == name]
        (condition,) = [one for one in found["conditions"] if one["type"] == kind]
        return condition["status"], condition["reason"]


@pytest.fixture
def program():
    program = Program()
    program.put(isvc(), *backend("iris-predictor", 9001))
    return program


def shares(name="iris"):
    found = policy(backends=[to_service("stable", "iris-predictor")], split=split(stable=1))
    found["metadata"]["name"] = name
    return found


def test_a_policy_that_an_older_one_keeps_out_is_not_programmed(program):
    program.put(shares(), shares("other"))
    assert program.condition("TrafficPolicy models/other", "Accepted") == ("False", "Conflicted")
    assert program.condition("TrafficPolicy models/other", "Programmed") == ("False", "Pending")


def test_a_fault_of_ours_shows_on_the_target_and_its_policy(program, monkeypatch):
    def broken(*_):
        raise OverflowError

    program.put(shares())
    monkeypatch.setattr(pipelines, "plan", broken)
    changed = shares()
    changed["spec"]["split"][0]["weight"] = 2
    program.put(changed)
    name = "xdserve.io/GatewayProgrammed"
    assert program.condition("InferenceService models/iris", name) == ("False", "Failed")
    assert program.condition("TrafficPolicy models/iris", "Programmed") == ("False", "Failed")


def test_an_error_names_the_document_where_its_object_stands_now(program):
    program.put(shares("other"), shares())
    program.place = Place("moved.yaml", 3)
    (error,) = program.state.errors()
    assert error["source"] == {"file": "moved.yaml", "document": 3}


def test_what_an_envoy_refuses_is_the_fault_of_the_object_it_comes_from(program):
    program.put(shares())
    origin = program.server.scope("models/iris").get(ResourceType.ROUTE, "models/iris").origin
    refusal = Refusal(version="7", code=13, message="no", node="envoy-1")
    found = Rejection(type=ResourceType.ROUTE, name="models/iris", refusal=refusal, origin=origin, served="6")
    program.rejections.say("models/iris", [found])
    (refused,) = program.state.errors()
    assert (refused["object"], refused["reason"]) == ("TrafficPolicy models/iris", "Rejected")
    refuses = "Envoy envoy-1 refuses the routes models/iris (version 7)"
    assert refused["message"] == f"{refuses}, version 6 is served instead: no"
