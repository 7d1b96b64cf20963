"""How many gateways have their pods replaced at a time."""

from __future__ import annotations

import pytest

from tests.unit.kube.test_wanted import MADE
from translator.objects.ref import Ref
from xdserve.kube.rolls import ROLL_SECONDS, ROLLING, Rolls
from xdserve.kube.wanted import rolled, rolling, rolls

TARGETS = [Ref("serving.kserve.io", "InferenceService", "models", f"iris-{number}") for number in range(100)]
FIRST, LATE = TARGETS[:ROLLING], ROLL_SECONDS + 1
ONE, OTHER = TARGETS[ROLLING : ROLLING + 2]


@pytest.fixture
def full():
    found = Rolls()
    assert all(found.begin(target, "image", 0, well=True) for target in FIRST)
    return found


def test_so_many_roll_and_the_next_begin_when_those_are_done(full):
    assert not full.begin(ONE, "image", 0, well=True)
    assert not full.begin(OTHER, "image", 0, well=True)
    assert full.next(1) == []
    assert full.waits(ONE, "image", 1)
    full.end(FIRST[3])
    assert full.next(1) == [ONE]
    assert not full.waits(ONE, "image", 1)
    assert full.begin(ONE, "image", 1, well=True)
    assert full.waiting == (OTHER,)


def test_pods_that_do_not_come_keep_the_same_change_from_all_others(full):
    assert not full.begin(ONE, "image", 1, well=True)
    assert full.stuck(1) == []
    assert full.next(LATE) == []
    assert full.stuck(LATE) == FIRST
    assert not any(full.over(target, "image", LATE) for target in FIRST)


def test_another_change_goes_on(full):
    """First to whom the last one harmed, who hold no place for it."""
    assert all(full.over(target, "mended image", LATE) for target in FIRST)
    assert full.begin(FIRST[0], "mended image", LATE, well=False)
    assert not full.over(FIRST[0], "mended image", 2 * LATE), "it was well once"
    assert full.begin(FIRST[0], "mended image", 1.5 * LATE, well=False)
    assert full.over(FIRST[0], "image", 2 * LATE), "asked again it does not begin again"


def test_what_a_gateways_own_owner_changes_does_not_wait_for_what_does_not_come(full):
    assert not full.begin(ONE, None, 1, well=True)
    assert full.next(LATE) == [ONE]
    assert full.begin(ONE, None, LATE, well=True)
    assert full.over(ONE, "image", 2 * LATE)


def test_a_gateway_that_was_not_available_before_holds_up_nobody_for_long():
    found = Rolls()
    assert found.begin(ONE, "image", 0, well=False)
    assert not found.over(ONE, "image", 1)
    assert found.over(ONE, "image", LATE)


def test_of_many_replicas_each_has_its_time(full):
    full.came(FIRST[0], 1, LATE - 1)
    assert len(full.stuck(LATE)) == 0
    full.came(FIRST[0], 1, 2 * LATE)
    assert full.stuck(2 * LATE) == FIRST


def test_what_a_former_leader_began_counts(full):
    found = Rolls()
    for target in FIRST:
        found.resume(target, "image", 0)
    assert not found.begin(ONE, "image", 1, well=True)
    assert found.begin(FIRST[0], "image", 1, well=False)
    found.clear()
    assert found.waiting == ()
    assert ONE not in found
    assert FIRST[0] not in found


DEPLOYMENT = MADE[-1]


def with_status(generation=2, observed=2, *, replicas=2, updated=2, available=2):
    status = {"observedGeneration": observed, "replicas": replicas}
    status |= {"updatedReplicas": updated, "availableReplicas": available}
    return DEPLOYMENT | {"metadata": DEPLOYMENT["metadata"] | {"generation": generation}, "status": status}


@pytest.mark.parametrize(
    ("found", "done", "mixed"),
    [
        (with_status(), True, False),
        (with_status(observed=1), False, False),
        (with_status(replicas=3, updated=1), False, True),
        (with_status(replicas=3, updated=2), False, True),
        (with_status(available=1), False, False),
        (with_status(updated=1, replicas=1, available=1), False, False),
        (DEPLOYMENT, False, False),
        (DEPLOYMENT | {"status": {}}, False, False),
    ],
)
def test_when_pods_have_been_replaced(found, done, mixed):
    assert rolled(found) is done
    assert rolling(found) is mixed


def test_what_replaces_pods():
    template = DEPLOYMENT["spec"]["template"]
    other = template | {"metadata": template["metadata"] | {"annotations": {"other": "bootstrap"}}}
    assert not rolls(DEPLOYMENT, DEPLOYMENT | {"spec": DEPLOYMENT["spec"] | {"replicas": 7}})
    assert rolls(DEPLOYMENT, DEPLOYMENT | {"spec": DEPLOYMENT["spec"] | {"template": other}})
