"""From what is known of an object to its conditions, and to the status that Kubernetes is to hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from translator.objects.ref import KSERVE, XDSERVE, Ref
from translator.plan import Condition
from xdserve.conditions import (
    CONTROLLER,
    GATEWAY_PROGRAMMED,
    LONGEST_MESSAGE,
    Delivery,
    Progress,
    Refused,
    Verdict,
    against,
    conditions,
    policy_status,
    programmed,
    refused_entries,
    said,
    unlike,
    verdict,
    with_condition,
)
from xdserve.ledger import Entry

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
IRIS = "models/iris"
POLICY = Ref(XDSERVE, "TrafficPolicy", "models", "iris")
TARGET = {"group": KSERVE, "kind": "InferenceService", "name": "iris", "namespace": "models"}
GOOD = Verdict("Programmed", "True", "Programmed", "all have it")
BAD = Verdict("Programmed", "False", "Rejected", "one refuses it")

DONE, PENDING, ABSENT = (Delivery("new", found) for found in (Progress.DONE, Progress.PENDING, Progress.ABSENT))
REFUSES = Delivery("new", Progress.DONE, (Refused(POLICY, "spec.rules[0]", "Envoy gw-1 refuses it: missing )"),))


def reason(own, *others):
    return programmed(IRIS, own, others)[0]


def test_a_gateway_is_programmed_when_the_envoys_of_every_replica_have_acknowledged():
    assert reason(DONE) == "Programmed"
    assert reason(DONE, DONE) == "Programmed"
    assert reason(ABSENT, DONE) == "Programmed"
    assert reason(DONE, PENDING) == "Pending"
    assert reason(PENDING) == "Pending"
    assert reason(ABSENT, ABSENT) == "NoGateway"


def test_a_replica_that_speaks_of_another_configuration_has_yet_to_hear_of_an_edit():
    assert reason(DONE, Delivery("old", Progress.DONE)) == "Pending"
    assert reason(DONE, Delivery("old", Progress.DONE, REFUSES.refused)) == "Pending"
    assert reason(DONE, Delivery("old", Progress.ABSENT)) == "Programmed"


def test_a_refusal_counts_whichever_replica_heard_it():
    assert reason(REFUSES) == "Rejected"
    assert programmed(IRIS, DONE, [REFUSES]) == (
        "Rejected",
        "TrafficPolicy models/iris spec.rules[0]: Envoy gw-1 refuses it: missing )",
    )
    (entry,) = refused_entries(POLICY, DONE, [REFUSES])
    assert (entry.field, entry.reason) == ("spec.rules[0]", "Rejected")
    assert not list(refused_entries(POLICY, Delivery("newer", Progress.DONE), [REFUSES]))


def test_what_nothing_is_said_against_is_true():
    assert [(one.type, one.status, one.reason) for one in said([])] == [
        ("Accepted", "True", "Accepted"),
        ("ResolvedRefs", "True", "ResolvedRefs"),
    ]
    warning = Entry(None, POLICY, "spec.router", "FieldIgnored", "has no effect")
    missing = Entry(None, POLICY, "spec.split[0]", "BackendNotFound", "no such Service")
    accepted, resolved = said([warning, missing])
    assert accepted.status == "True"
    assert resolved == ("ResolvedRefs", "False", "BackendNotFound", "spec.split[0]: no such Service")


def test_what_waits_is_unknown_on_objects_of_others_and_false_on_ours():
    found = {reason: verdict(GATEWAY_PROGRAMMED, reason, "").status for reason in ("Pending", "NoGateway", "Rejected")}
    assert found == {"Pending": "Unknown", "NoGateway": "Unknown", "Rejected": "False"}
    assert verdict("Programmed", "Pending", "").status == "False"
    assert verdict(GATEWAY_PROGRAMMED, "Programmed", "").status == "True"


def test_without_a_target_no_backend_is_said_to_be_there():
    missing = Entry(None, POLICY, "spec.targetRef", "TargetNotFound", "InferenceService models/iris not found")
    accepted, resolved = said([missing])
    assert accepted == ("Accepted", "False", "TargetNotFound", f"{missing.field}: {missing.message}")
    assert resolved == ("ResolvedRefs", "Unknown", "Pending", "not accepted (see Accepted), so not looked at")


def test_where_no_field_is_at_fault_none_is_named():
    failed = Entry(None, POLICY, "metadata.name", "Failed", "Service models/iris-gateway is there already")
    assert against([failed], Condition.PROGRAMMED) == ("Failed", failed.message)


def test_replicas_of_another_version_are_not_to_be_compared_with():
    old, new = (Delivery(one, Progress.DONE, version=one) for one in ("old", "new"))
    assert unlike(IRIS, old, [new])
    assert unlike(IRIS, Delivery("old", Progress.ABSENT, version="old"), [new])
    # Another configuration of the same version is an edit that one of the two has yet to hear of.
    assert not unlike(IRIS, old, [new, Delivery("edited", Progress.DONE, version="old")])
    assert not unlike(IRIS, Delivery("old", Progress.PENDING, version="old"), [new])
    assert not unlike(IRIS, old, [Delivery("old", Progress.PENDING, version="new")])
    assert not unlike(IRIS, old, [Delivery("new", Progress.ABSENT, version="new")])


def test_the_date_moves_with_the_status_alone():
    first = conditions([], [GOOD], 1, NOON)
    assert first[0]["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    assert conditions(first, [GOOD], 1, LATER) == first
    (again,) = conditions(first, [GOOD._replace(message="other")], 2, LATER)
    assert (again["lastTransitionTime"], again["observedGeneration"]) == ("2026-01-01T12:00:00Z", 2)
    (bad,) = conditions(first, [BAD], 2, LATER)
    assert bad["lastTransitionTime"] == "2026-01-01T13:00:00Z"


def test_a_message_is_bounded():
    (found,) = conditions([], [BAD._replace(message="x" * 40_000)], 1, NOON)
    assert len(found["message"]) == LONGEST_MESSAGE


def test_what_other_controllers_say_of_a_policy_stays():
    other = {"ancestorRef": TARGET, "controllerName": "example.org/other", "conditions": [{"type": "Accepted"}]}
    former = {"ancestorRef": TARGET | {"name": "former"}, "controllerName": CONTROLLER, "conditions": []}
    status = policy_status({"ancestors": [former, other]}, TARGET, [GOOD], 1, NOON)
    assert status["ancestors"][0] == other
    assert [one["ancestorRef"]["name"] for one in status["ancestors"]] == ["iris", "iris"]
    assert policy_status(status, TARGET, [GOOD], 1, LATER) == status


OURS = Verdict(GATEWAY_PROGRAMMED, "True", "Programmed", "")
NAMES = st.sampled_from(["Ready", "PredictorReady", "IngressReady", GATEWAY_PROGRAMMED])
LISTS = st.lists(
    st.fixed_dictionaries({"type": NAMES, "status": st.sampled_from(["True", "False", "Unknown"])}),
    max_size=6,
    unique_by=lambda one: one["type"],
)


@given(LISTS)
def test_in_a_list_of_others_nothing_of_theirs_changes(listed):
    made = with_condition(listed, OURS, NOON)
    theirs = [one for one in listed if one["type"] != GATEWAY_PROGRAMMED]
    assert [one for one in made if one["type"] != GATEWAY_PROGRAMMED] == theirs
    assert [one["type"] for one in made].count(GATEWAY_PROGRAMMED) == 1
    assert with_condition(made, OURS, LATER) == made
