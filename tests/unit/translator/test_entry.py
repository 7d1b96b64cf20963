"""Which components get the requests: the whole table of what was active, what is wanted, and what is ready."""

from __future__ import annotations

import pytest

from tests.unit.pipeline import documents as d
from tests.unit.pipeline.recorder import made
from translator.objects import Ref
from translator.planners import plan
from translator.planners.components import ActiveComponents, Unknown
from translator.planners.indexes import INDEXES
from translator.planners.options import Options
from translator.view import Objects, View

IRIS = Ref("serving.kserve.io", "InferenceService", "models", "iris")
NEW, RESTARTED = Unknown.NEW, Unknown.RESTARTED
OLD, V2 = "iris-predictor", "iris-v2-predictor"
STOPPED = {"annotations": {"serving.kserve.io/stop": "true"}}

READY, UNREADY, GONE = "ready", "unready", "gone"


def there(name, how):
    """The Service of a component and its endpoint; nothing of one that is gone."""
    return [] if how == GONE else [d.service(name), d.endpoint_slice(name, {"10.0.0.1": how == READY})]


def planned(before, services, **spec):
    objects = Objects(INDEXES)
    for document in (d.inference_service("iris", **spec), *services):
        objects.put(made(document))
    return plan(View(objects), IRIS, Options(), before=before)


def active(before, services, **spec):
    found = planned(before, services, **spec).active
    return found.entry, found.predictor, found.explainer


def plain(entry="predictor", predictor=OLD, *, explainer=False):
    return ActiveComponents(entry, predictor, explainer)


def findings(found):
    return [(finding.origin.field, finding.message) for finding in found.findings]


# -- A transformer ---------------------------------------------------------------------------------------------------

ADDED = [
    # before, transformer, predictor, conditions: the entry
    (plain(), READY, READY, (), "transformer"),
    (plain(), UNREADY, READY, (), "predictor"),
    (plain(), GONE, READY, (), "predictor"),
    # While the program runs, what KServe says of a transformer does not replace endpoints.
    (plain(), UNREADY, READY, ("TransformerReady",), "predictor"),
    # An outage of the predictor is none of the transformer's business, unless nothing of it is left.
    (plain(), UNREADY, UNREADY, (), "predictor"),
    (plain(), UNREADY, GONE, (), "transformer"),
    # It was ready once.
    (plain("transformer"), UNREADY, READY, (), "transformer"),
    (plain("transformer"), GONE, READY, (), "transformer"),
    # Nobody can have used the predictor.
    (NEW, UNREADY, READY, (), "transformer"),
    (NEW, GONE, READY, (), "transformer"),
    (RESTARTED, READY, READY, (), "transformer"),
    (RESTARTED, UNREADY, READY, ("TransformerReady",), "transformer"),
    (RESTARTED, UNREADY, READY, ("ExplainerReady",), "predictor"),
    (RESTARTED, UNREADY, READY, (), "predictor"),
    (RESTARTED, GONE, READY, (), "predictor"),
    (RESTARTED, UNREADY, UNREADY, (), "transformer"),
    (RESTARTED, GONE, GONE, (), "transformer"),
]


@pytest.mark.parametrize(("before", "transformer", "predictor", "true", "entry"), ADDED)
def test_a_transformer_is_the_entry_once_it_was_ready(before, transformer, predictor, true, entry):
    services = [*there("iris-transformer", transformer), *there(OLD, predictor)]
    assert active(before, services, transformer=True, true=true) == (entry, OLD, False)


@pytest.mark.parametrize(
    ("transformer", "predictor", "entry"),
    [
        (READY, READY, "predictor"),
        (READY, UNREADY, "transformer"),
        (UNREADY, UNREADY, "transformer"),
        (GONE, UNREADY, "predictor"),
        (GONE, GONE, "predictor"),
    ],
)
def test_one_that_is_removed_goes_when_the_predictor_can_do_without(transformer, predictor, entry):
    services = [*there("iris-transformer", transformer), *there(OLD, predictor)]
    assert active(plain("transformer"), services) == (entry, OLD, False)


def test_of_a_stopped_service_nothing_stays():
    services = there(OLD, READY)
    assert active(plain(), services, transformer=True, metadata=STOPPED) == ("transformer", OLD, False)


# -- Another predictor -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "new", "old", "predictor"),
    [
        (plain(), READY, READY, V2),
        (plain(), UNREADY, READY, OLD),
        (plain(), GONE, READY, OLD),
        (plain(), UNREADY, UNREADY, OLD),
        (plain(), UNREADY, GONE, V2),
        (plain(predictor=V2), UNREADY, READY, V2),
        (NEW, UNREADY, READY, V2),
        (RESTARTED, READY, READY, V2),
        (RESTARTED, GONE, READY, OLD),
        (RESTARTED, UNREADY, UNREADY, V2),
    ],
)
def test_a_predictor_of_another_name_takes_over_when_it_is_ready(before, new, old, predictor):
    services = [*there(V2, new), *there(OLD, old)]
    assert active(before, services, predictor="v2") == ("predictor", predictor, False)


def test_a_transformer_and_another_predictor_are_waited_for_each_by_itself():
    services = [*there(V2, UNREADY), *there(OLD, READY), *there("iris-transformer", READY)]
    assert active(plain(), services, predictor="v2", transformer=True) == ("transformer", OLD, False)
    services = [*there(V2, READY), *there(OLD, READY), *there("iris-transformer", UNREADY)]
    assert active(plain(), services, predictor="v2", transformer=True) == ("predictor", V2, False)


# -- An explainer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "explainer", "predictor", "true", "explains"),
    [
        (plain(), READY, READY, (), True),
        (plain(), UNREADY, READY, (), False),
        (plain(), GONE, UNREADY, (), False),
        (plain(), UNREADY, READY, ("ExplainerReady",), False),
        (plain(explainer=True), UNREADY, READY, (), True),
        (plain(explainer=True), GONE, READY, (), True),
        (NEW, GONE, READY, (), True),
        (RESTARTED, READY, READY, (), True),
        (RESTARTED, UNREADY, READY, ("ExplainerReady",), True),
        (RESTARTED, UNREADY, READY, ("TransformerReady",), False),
        (RESTARTED, UNREADY, READY, (), False),
        (RESTARTED, UNREADY, UNREADY, (), True),
    ],
)
def test_an_explainer_explains_once_it_was_ready(before, explainer, predictor, true, explains):
    services = [*there("iris-explainer", explainer), *there(OLD, predictor)]
    found = planned(before, services, explainer=True, true=true)
    assert found.active == plain(explainer=explains)
    routes = [route.name for route in found.service.hosts[0].routes]
    assert ("explain" in routes) == explains


def test_one_that_is_removed_explains_no_more():
    assert active(plain(explainer=True), [*there(OLD, READY), *there("iris-explainer", READY)]) == (
        "predictor",
        OLD,
        False,
    )


# -- What is said ----------------------------------------------------------------------------------------------------


def test_what_is_waited_for_is_said():
    services = [*there(OLD, READY), *there("iris-transformer", UNREADY), *there("iris-explainer", UNREADY)]
    found = planned(plain(), services, predictor="v2", transformer=True, explainer=True)
    none = "has no ready endpoint"
    assert findings(found) == [
        ("spec.predictor", f"Service models/{V2} is not ready yet; requests still go to Service models/{OLD}"),
        (
            "spec.transformer",
            f"backend transformer (Service models/iris-transformer) {none}; requests still enter at the predictor",
        ),
        (
            "spec.explainer",
            f"backend explainer (Service models/iris-explainer) {none}; requests for :explain go where all others go",
        ),
    ]


def test_what_is_not_there_yet_too():
    found = planned(plain(), there(OLD, READY), transformer=True)
    message = "Service models/iris-transformer not found; requests still enter at the predictor"
    assert findings(found) == [("spec.transformer", message)]


def test_an_outage_is_told_as_one():
    found = planned(plain("transformer"), [*there(OLD, READY), *there("iris-transformer", UNREADY)], transformer=True)
    message = "backend transformer (Service models/iris-transformer) has no ready endpoint"
    assert findings(found) == [("spec.transformer", message)]


def test_canaries_count_until_the_transformer_does():
    canary = there("iris-c-predictor", READY)
    services = [*there(OLD, READY), *canary]
    spec = {"transformer": True, "canaries": (("c", 20),)}
    found = planned(plain(), [*services, *there("iris-transformer", UNREADY)], **spec)
    default = found.service.hosts[0].routes[-1].action
    assert [(share.backend, share.weight) for share in default.shares] == [("predictor", 80), ("c", 20)]
    assert [field for field, _ in findings(found)] == ["spec.transformer"]
    found = planned(plain(), [*services, *there("iris-transformer", READY)], **spec)
    assert findings(found) == [("spec.canary", "has no effect: the transformer calls the stable predictor by itself")]


def test_the_timeout_is_that_of_the_entry():
    services = [*there(OLD, READY), *there("iris-transformer", UNREADY)]
    found = planned(plain(), services, transformer=True, timeout=7)
    assert found.service.hosts[0].routes[-1].timeouts.request == 7000
    found = planned(plain("transformer"), services, transformer=True, timeout=7)
    assert found.service.hosts[0].routes[-1].timeouts.request == 0


def test_a_rival_does_not_make_it_forgotten():
    objects = Objects(INDEXES)
    for document in (d.inference_service("iris", created="2026-02-01T00:00:00Z"), d.inference("iris", {"p": 1})):
        objects.put(made(document))
    for before, after in (plain("transformer"), plain("transformer")), (NEW, None):
        found = plan(View(objects), IRIS, Options(), before=before)
        assert found.service is None
        assert found.active == after
