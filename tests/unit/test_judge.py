"""Whose conditions change with what, and what other replicas' Envoys mean for them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from translator.objects import Ref, parse
from translator.planners.options import Options
from xds.server import Server
from xds.session import Terms
from xdserve.conditions import Delivery, Progress, Refused
from xdserve.judge import Judge, Voice
from xdserve.ledger import Entry, Ledger, Place, entry
from xdserve.metrics import Metrics
from xdserve.observer import StreamObserver
from xdserve.pipeline import Pipeline
from xdserve.rejections import Rejections
from xdserve.sources import Gone, Put, Source

IRIS = "models/iris"
TARGET = Ref("serving.kserve.io", "InferenceService", "models", "iris")
POLICY = Ref("xdserve.io", "TrafficPolicy", "models", "iris")


class Program:
    """A judge over the parts of a program; `elsewhere` is what another replica says of the gateway."""

    def __init__(self, now, options=None):
        self.ledger = Ledger(now, lambda ref: Place("a.yaml", 1))
        metrics = Metrics(process=False)
        rejections = Rejections(self.ledger, metrics, now)
        observer = StreamObserver(metrics, lambda gateway: None, rejections.say)
        server = Server(Terms(identifier="test", linger=0), observer)
        self.pipeline = Pipeline(options or Options(), server, self)
        self.elsewhere, self.wanted, self.starting = [], True, None
        self.judge = Judge(
            self.pipeline,
            server,
            self.ledger,
            rejections,
            lambda gateway: self.elsewhere,
            wanted=lambda ref: self.wanted,
            starting=lambda ref: self.starting,
            version="v1",
        )

    def found(self, owner, findings):
        self.ledger.say(owner, [entry(finding) for finding in findings])

    def failed(self, service, error):
        raise error

    def put(self, *documents):
        self.pipeline.apply([Put(parse(document), Source("a.yaml", 1)) for document in documents])
        while self.pipeline.run():
            pass

    def remove(self, ref):
        self.pipeline.apply([Gone(ref)])
        while self.pipeline.run():
            pass

    def judged(self, ref):
        ((_, judgement),) = self.judge.judge([ref])
        return judgement

    def said(self, ref):
        judgement = self.judged(ref)
        return {one.type: (one.status, one.reason, one.message) for one in judgement.verdicts}

    def here(self):
        return self.judge.delivery(IRIS)


@pytest.fixture
def program(now):
    program = Program(now)
    found = policy(backends=[to_service("stable", "iris-predictor")], split=split(stable=1))
    program.put(isvc(), *backend("iris-predictor", 9001), found)
    return program


@pytest.fixture
def now():
    return lambda: datetime(2026, 1, 1, tzinfo=UTC)


def test_envoys_of_another_replica_are_envoys_of_the_gateway(program):
    assert program.said(POLICY)["Programmed"][1] == "NoGateway"
    program.elsewhere = [Delivery(program.here().digest, Progress.DONE)]
    assert program.said(POLICY)["Programmed"][:2] == ("True", "Programmed")
    assert program.said(TARGET)["xdserve.io/GatewayProgrammed"][:2] == ("True", "Programmed")


def test_what_they_refuse_shows_with_field_and_words_on_policy_and_target(program):
    line = Refused(POLICY, "spec.rules[0]", "Envoy gw-1 refuses it: missing )")
    program.elsewhere = [Delivery(program.here().digest, Progress.DONE, (line,))]
    assert program.said(POLICY)["Programmed"] == ("False", "Rejected", f"spec.rules[0]: {line.message}")
    assert program.said(TARGET)["xdserve.io/GatewayProgrammed"] == (
        "False",
        "Rejected",
        f"TrafficPolicy {IRIS} {line.field}: {line.message}",
    )


def test_what_they_said_of_the_policy_before_its_edit_is_pending(program):
    program.elsewhere = [Delivery(program.here().digest, Progress.DONE)]
    changed = policy(backends=[to_service("stable", "iris-predictor")], split=split(stable=1), timeouts={"idle": "9s"})
    program.put(changed)
    assert program.said(POLICY)["Programmed"][1] == "Pending"


def test_endpoints_that_change_are_another_delivery_of_the_same_configuration(program):
    before = program.here().digest
    program.put(*backend("iris-predictor", 9002))
    assert program.here().digest == before


def test_a_policy_concerns_its_target_and_what_else_is_attached_to_it(program):
    assert program.judge.family(POLICY) == {POLICY, TARGET}
    assert program.judge.concerned(IRIS) == {POLICY, TARGET}
    assert program.judge.concerned("models/other") == set()


def test_a_policy_that_nobody_could_ever_read_says_so(program):
    other = POLICY._replace(name="other")
    program.ledger.say("source", [Entry(None, other, "spec.rules", "Invalid", "found 1, allowed a list")])
    found = program.said(other)
    assert found["Accepted"] == ("False", "Invalid", "spec.rules: found 1, allowed a list")
    assert found["Programmed"][1] == "Pending"
    assert other in program.judge.refs()


@pytest.mark.parametrize(
    ("wanted", "voice", "status"),
    [(True, Voice.SPEAKS, "Unknown"), (None, Voice.GOES_ON, "Unknown"), (False, Voice.SILENT, None)],
)
def test_of_a_gateway_without_envoys_it_is_told_where_one_is_wanted(program, wanted, voice, status):
    program.wanted = wanted
    assert program.judged(TARGET).voice is voice
    assert program.said(TARGET).get("xdserve.io/GatewayProgrammed", [None])[0] == status
    # Envoys that are there are told of, whoever has made them.
    program.elsewhere = [Delivery(program.here().digest, Progress.DONE)]
    assert program.judged(TARGET).voice is Voice.SPEAKS
    assert program.said(TARGET)["xdserve.io/GatewayProgrammed"][0] == "True"


@pytest.mark.parametrize(("wanted", "told"), [(True, True), (None, True), (False, False)])
def test_a_mode_that_is_not_served_is_told_though_there_is_no_gateway_but_not_to_who_wants_none(now, wanted, told):
    program = Program(now)
    program.put(isvc())
    program.wanted = wanted
    ref = TARGET._replace(name="knative")
    words = "the mode Knative of KServe is not served"
    program.pipeline.objects.put(parse(isvc(name="knative")))
    field = "metadata.annotations[serving.kserve.io/deploymentMode]"
    program.ledger.say("plan", [Entry(None, ref, field, "UnsupportedMode", words)])
    assert program.judge.delivery("models/knative") is None
    found = program.said(ref).get("xdserve.io/GatewayProgrammed")
    assert found == (("False", "UnsupportedMode", f"{field}: {words}") if told else None)
    assert program.judged(ref).muted is not told
    assert program.judged(ref).voice is (Voice.SPEAKS if told else Voice.SILENT)


def test_of_a_target_that_opted_out_no_event_tells(program):
    program.put(isvc())
    assert not program.judged(TARGET).muted
    program.wanted = None  # others make gateways, and nobody has opted out
    assert not program.judged(TARGET).muted
    program.wanted = False
    assert program.judged(TARGET).muted
    # Its policy was written by somebody who wants to know.
    assert not program.judged(POLICY).muted


def test_who_looks_for_missing_envoys_is_told_where(program):
    none = f"no Envoy of {IRIS} is connected"
    found = {}
    for program.wanted in (True, None, False):
        found[program.wanted] = program.said(POLICY)["Programmed"][2]
    assert found == {
        True: f"{none}; see the pods of Deployment iris-gateway",
        None: none,
        False: f"{none}; none is made for it",
    }


def test_why_the_pods_of_a_gateway_do_not_run_is_told_where_it_is_known(program):
    program.starting = "no pod can be made (FailedCreate): quota"
    words = f"no Envoy of {IRIS} is connected; Deployment iris-gateway: {program.starting}"
    assert program.said(POLICY)["Programmed"][1:] == ("NoGateway", words)
    assert program.said(TARGET)["xdserve.io/GatewayProgrammed"] == ("Unknown", "NoGateway", words)
    # Envoys that are there need no Deployment.
    program.elsewhere = [Delivery(program.here().digest, Progress.DONE)]
    assert program.said(POLICY)["Programmed"][1] == "Programmed"


def test_a_target_whose_gateway_is_an_older_one_s_says_so(program):
    younger = isvc() | {"apiVersion": "serving.kubedl.io/v1alpha1", "kind": "Inference"}
    younger["metadata"] = younger["metadata"] | {"creationTimestamp": "2030-01-01T00:00:00Z"}
    younger["spec"] = {"framework": "TFServing", "predictors": [{"name": "a", "template": {}}]}
    program.put(younger)
    ref = Ref("serving.kubedl.io", "Inference", "models", "iris")
    assert program.said(ref)["xdserve.io/GatewayProgrammed"][:2] == ("False", "Conflicted")
    program.wanted = False
    assert "xdserve.io/GatewayProgrammed" not in program.said(ref)


def test_an_invalid_policy_says_whether_a_valid_one_is_served(program):
    program.ledger.say("source", [Entry(None, POLICY, "spec.rules", "Invalid", "found 1, allowed a list")])
    assert program.said(POLICY)["Programmed"][2] == "not accepted (see Accepted); the last valid one stays in force"
    younger = policy(backends=[to_service("stable", "iris-predictor")], split=split(stable=1))
    younger["metadata"]["name"] = "other"
    program.put(younger)
    other = program.said(POLICY._replace(name="other"))
    assert other["Accepted"][1] == "Conflicted"
    assert other["Programmed"][2] == "not accepted (see Accepted), so not in force"


def test_a_gateway_without_a_host_that_it_may_not_have_is_in_force_for_the_rest(program):
    gateway = Ref("xdserve.io", "ServiceGateway", "models", "iris")
    program.put(entrance(9090, hosts=["a.example.org"]))
    assert program.said(gateway)["Accepted"][1] == "Invalid"
    assert program.said(gateway)["Programmed"][2] == "not accepted (see Accepted); all but that is in force"
    unreadable = Entry(Place("a.yaml", 1), gateway, "spec.port", "Invalid", "found 0, allowed 1..65535")
    program.ledger.say("source", [unreadable])
    assert program.said(gateway)["Programmed"][2] == "not accepted (see Accepted); the last valid one stays in force"


def test_replicas_of_another_version_make_a_gateway_wait_apart(program):
    waits = Delivery(program.here().digest, Progress.PENDING, version="v1")
    program.elsewhere = [Delivery("other", Progress.DONE, version="v2"), waits]
    assert not program.judged(POLICY).rolling
    program.elsewhere = [Delivery("other", Progress.DONE, version="v2")]
    assert program.said(POLICY)["Programmed"][1] == "Pending"
    assert program.judged(POLICY).rolling
    assert program.judged(TARGET).rolling
    program.elsewhere = [Delivery("other", Progress.DONE, version="v1")]
    assert not program.judged(POLICY).rolling


def test_of_a_target_that_a_selector_may_hide_nothing_is_said(now):
    program = Program(now, Options(selective=True))
    found = policy(backends=[to_service("stable", "iris-predictor")], split=split(stable=1))
    program.put(*backend("iris-predictor", 9001), found)
    assert not list(program.judge.judge([POLICY]))
    assert program.judge.elsewhere(TARGET)
    assert not len(program.ledger)
    program.put(isvc())
    assert program.said(POLICY)["Accepted"][0] == "True"
    program.remove(TARGET)
    assert not list(program.judge.judge())
    assert not len(program.ledger)


def test_a_service_is_hidden_by_no_selector(now):
    program = Program(now, Options(selective=True))
    found = policy(backends=[to_service("stable", "iris-predictor")], split=split(stable=1))
    found["spec"]["targetRef"] = {"group": "", "kind": "Service", "name": "none"}
    program.put(found)
    assert program.said(POLICY)["Accepted"][1] == "TargetNotFound"


def test_the_ledger_tells_whose_entries_change(program):
    told = []
    program.ledger.subscribe(told.append)
    wrong = Entry(None, POLICY, "spec", "Invalid", "wrong")
    program.ledger.say("source", [wrong])
    program.ledger.say("source", [wrong])
    program.ledger.say("source", [])
    assert told == [{POLICY}, {POLICY}]
