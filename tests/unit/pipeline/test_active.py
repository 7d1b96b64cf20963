"""What is active is carried from plan to plan, over a restart, and to the plans of other services."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.unit.pipeline import documents as d
from tests.unit.pipeline.recorder import SOURCE, Run, made
from translator.objects import Ref
from translator.planners.components import ActiveComponents
from xdserve.sources import Put

IRIS = Ref("serving.kserve.io", "InferenceService", "models", "iris")
GATEWAY = "models/iris"
PLAIN = ActiveComponents("predictor", "iris-predictor")
BEHIND = ActiveComponents("transformer", "iris-predictor")
WITH = d.inference_service("iris", transformer=True)
PREDICTOR = [d.service("iris-predictor"), d.endpoint_slice("iris-predictor", {"10.0.0.1": True})]
TO_PREDICTOR, TO_TRANSFORMER, NOBODY = {"predictor": 1}, {"transformer": 1}, {}


def transformer(*, ready):
    return [d.service("iris-transformer"), d.endpoint_slice("iris-transformer", {"10.0.0.9": ready})]


def running(*documents, active=None):
    """A pipeline whose first pass is over, after one that said what was active."""
    run = Run()
    run.pipeline.remember({}, active)
    run.put(*documents)
    run.pipeline.open()
    return run


@pytest.fixture
def run():
    """A live service without a transformer."""
    return running(*d.served("iris", "10.0.0.1"))


def test_one_that_is_added_gets_requests_when_it_is_ready_and_keeps_them(run):
    run.put(WITH)
    assert run.split(GATEWAY) == TO_PREDICTOR
    run.put(*transformer(ready=False))
    assert run.split(GATEWAY) == TO_PREDICTOR
    run.put(*transformer(ready=True))
    assert run.split(GATEWAY) == TO_TRANSFORMER
    run.put(*transformer(ready=False))
    assert (run.split(GATEWAY), run.status(GATEWAY)) == (NOBODY, 503)


def test_one_that_is_taken_out_before_it_was_ready_changes_nothing(run):
    run.put(WITH, *transformer(ready=False))
    published = len(run.said.published)
    run.put(d.inference_service("iris"))
    assert run.split(GATEWAY) == TO_PREDICTOR
    assert run.pipeline.active(IRIS) == PLAIN
    assert len(run.said.published) == published + 1


def test_one_that_is_added_again_is_waited_for_again(run):
    run.put(WITH, *transformer(ready=True))
    run.put(d.inference_service("iris"), *transformer(ready=False))
    run.put(WITH)
    assert run.split(GATEWAY) == TO_PREDICTOR


def test_the_predictor_of_a_new_service_never_gets_what_its_transformer_should(run):
    run.gone(IRIS)
    assert run.pipeline.active(IRIS) is None
    run.put(WITH, *transformer(ready=False))
    assert (run.split(GATEWAY), run.status(GATEWAY)) == (NOBODY, 503)


@pytest.mark.parametrize(
    ("active", "ready", "expected"),
    [
        (None, False, TO_PREDICTOR),
        (None, True, TO_TRANSFORMER),
        (PLAIN, False, TO_PREDICTOR),
        (PLAIN, True, TO_TRANSFORMER),
        (BEHIND, False, NOBODY),
    ],
)
def test_after_a_restart(active, ready, expected):
    run = running(WITH, *PREDICTOR, *transformer(ready=ready), active=active and {IRIS: active})
    assert run.split(GATEWAY) == expected


def test_in_the_first_pass_the_order_makes_no_difference():
    for order in permutations([WITH, *PREDICTOR, *transformer(ready=False)]):
        run = Run()
        for document in order:
            run.put(document)
        assert run.split(GATEWAY) == TO_PREDICTOR


def test_what_could_not_be_read_in_the_first_pass_is_not_new():
    run = Run()
    run.broken(IRIS)
    run.pipeline.open()
    run.put(WITH, *PREDICTOR)
    assert run.split(GATEWAY) == TO_PREDICTOR
    run.gone(IRIS)
    run.put(WITH)
    assert run.status(GATEWAY) == 503


def test_what_is_not_read_until_later_is_what_it_was():
    run = Run()
    run.pipeline.remember({}, {IRIS: PLAIN})
    run.pipeline.open()
    run.put(WITH, *PREDICTOR)
    assert run.split(GATEWAY) == TO_PREDICTOR


def test_each_change_is_told_once(run):
    assert run.pipeline.drain() == [IRIS]
    for document, changed in (
        (PREDICTOR[0], False),
        (WITH, False),
        *((found, False) for found in transformer(ready=False)),
        (transformer(ready=True)[1], True),
        (transformer(ready=False)[1], False),
        (d.inference_service("iris"), True),
    ):
        run.put(document)
        assert run.pipeline.drain() == [IRIS] * changed
    run.gone(IRIS)
    assert run.pipeline.drain() == [IRIS]
    assert run.pipeline.active(IRIS) is None


def test_other_targets_have_nothing_to_tell():
    run = running(d.inference("mnist", {"p": 1}), d.service("echo"), d.gateway("echo", d.CORE))
    assert run.pipeline.drain() == []


def test_what_is_known_is_not_told():
    run = running(WITH, *PREDICTOR, active={IRIS: BEHIND})
    run.pipeline.settle()
    assert run.pipeline.drain() == []


def test_what_does_not_come_is_forgotten():
    run = running(active={IRIS: BEHIND})
    run.pipeline.settle()
    assert run.pipeline.drain() == [IRIS]
    assert run.pipeline.active(IRIS) is None


def test_a_status_that_says_nothing_new_costs_no_plan(run):
    run.put(WITH, *transformer(ready=False))
    planned, _ = run.counted()
    said = [{"type": "PredictorReady", "status": "True"}, {"type": "TransformerReady", "status": "Unknown"}]
    run.put(WITH | {"status": {"conditions": said}})
    assert run.counted()[0] == planned


# -- Seen from elsewhere ---------------------------------------------------------------------------------------------


def referring(**ref):
    """A service whose policy sends everything to `iris`."""
    backend = {"name": "b", "ref": {**d.KSERVE, "name": "iris", **ref}}
    return [d.inference_service("a"), d.policy("a", d.KSERVE, backends=[backend], split=[{"backend": "b"}])]


def test_another_service_that_sends_there_enters_where_all_do(run):
    run.put(*referring())
    run.put(WITH, *transformer(ready=False))
    assert run.addresses("models/a", "b") == ["10.0.0.1"]
    run.put(*transformer(ready=True))
    assert run.addresses("models/a", "b") == ["10.0.0.9"]
    run.put(*transformer(ready=False))
    assert run.status("models/a") == 503


def test_the_order_of_services_makes_no_difference():
    for order in permutations([*referring(), WITH, *PREDICTOR]):
        run = Run()
        run.apply([Put(made(document), SOURCE) for document in order])
        assert run.addresses("models/a", "b") == ["10.0.0.1"]


def test_a_part_that_is_named_is_that_part(run):
    run.put(*referring(sectionName="transformer"))
    run.put(WITH, *transformer(ready=False))
    assert run.status("models/a") == 503


def test_a_policy_that_splits_says_where_requests_enter(run):
    run.put(WITH, *transformer(ready=False), d.policy("iris", d.KSERVE, split=[{"backend": "transformer"}]))
    assert run.status(GATEWAY) == 503
    (said,) = run.reasons()[str(IRIS)]
    assert said.endswith("backend transformer (Service models/iris-transformer) has no ready endpoint")


def test_a_rule_without_a_split_enters_where_all_do(run):
    rule = {"name": "r", "matches": [{"method": "PUT"}]}
    run.put(WITH, *transformer(ready=False), d.policy("iris", d.KSERVE, rules=[rule]))
    assert run.split(GATEWAY) == TO_PREDICTOR
    (said,) = run.reasons()[str(IRIS)]
    assert said.endswith("has no ready endpoint; requests still enter at the predictor")
