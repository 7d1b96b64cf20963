"""When an object of KServe's or KubeDL's may be written to."""

from __future__ import annotations

import pytest

from translator.objects.ref import KSERVE, KUBEDL, XDSERVE, Ref
from xdserve.kube.settling import Bounds, Settling

SERVICE = Ref(KSERVE, "InferenceService", "models", "iris")
INFERENCE = Ref(KUBEDL, "Inference", "models", "iris")
BOUNDS = Bounds(quiet=2, longest=30)


def document(version, generation=1, observed=None):
    status = {} if observed is None else {"observedGeneration": observed}
    return {"metadata": {"resourceVersion": version, "generation": generation}, "status": status}


class Life:
    """One object, as a writer that always has something to say looks at it."""

    def __init__(self, ref=SERVICE):
        self.ref, self.settling = ref, Settling()

    def at(self, now, seen):
        """When it may be written, as of now."""
        self.settling.see(seen, now)
        return self.settling.until(self.ref, seen, now, BOUNDS)


def test_a_status_of_the_newest_generation_that_is_quiet_for_two_seconds_is_settled():
    life = Life()
    assert life.at(0, document("1", observed=1)) == 2
    assert life.at(1, document("1", observed=1)) == 2
    assert life.at(2, document("1", observed=1)) <= 2


def test_each_write_of_another_begins_the_quiet_anew_and_ours_does_not():
    life = Life()
    life.at(0, document("1", observed=1))
    assert life.at(1, document("2", observed=1)) == 3
    life.settling.wrote("3")
    assert life.at(3, document("3", observed=1)) == 3  # that is now
    assert life.at(4, document("4", observed=1)) == 6


def test_an_object_that_is_written_to_all_the_time_is_waited_for_thirty_seconds():
    life = Life()
    ends = [life.at(now, document(str(now), observed=1)) for now in range(35)]
    assert ends[:28] == [now + 2 for now in range(28)]
    assert set(ends[28:]) == {30}
    # The next thing to be said has its own.
    life.settling.wrote("99")
    assert life.at(40, document("100", observed=1)) == 42


def test_time_in_which_nothing_was_to_be_said_does_not_count_as_waiting():
    life = Life()
    life.at(0, document("1", observed=1))
    life.settling.wishes_nothing()
    assert life.at(100, document("2", observed=1)) == 102


@pytest.mark.parametrize("observed", [None, 1, "2"])
def test_a_generation_that_its_controller_has_not_seen_is_waited_for_thirty_seconds(observed):
    life = Life()
    assert life.at(5, document("1", 2, observed)) == 35
    assert life.at(20, document("2", 2, observed)) == 35
    assert life.at(21, document("3", 2, 2)) == 23


def test_a_generation_that_its_controller_never_tells_is_waited_for_once():
    """KServe tells that of its Deployment, which an edit of the service may leave as it is."""
    life = Life()
    assert life.at(0, document("1", 2, 1)) == 30
    life.settling.wrote("2")
    assert life.at(60, document("2", 2, 1)) <= 60
    assert life.at(70, document("3", 2, 1)) == 72


def test_a_later_generation_than_its_own_counts_as_seen():
    """KServe tells that of its Deployment, which autoscaling changes."""
    assert Life().at(0, document("1", 1, 7)) == 2


def test_kubedl_tells_no_generation_so_quiet_is_enough():
    assert Life(INFERENCE).at(0, document("1")) == 2


def test_our_own_objects_wait_for_nobody():
    assert Life(Ref(XDSERVE, "TrafficPolicy", "models", "iris")).at(0, document("1")) == 0
