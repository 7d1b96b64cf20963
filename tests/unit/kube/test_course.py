"""What a reflector does next, without an apiserver and without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdserve.kube.course import (
    CONFIRM_DELAY,
    DOUBTED,
    EXPIRED_SPREAD,
    FIRST_DELAY,
    FORBIDDEN_DELAY,
    LONGEST_ASKED,
    LONGEST_DELAY,
    POLL_DELAY,
    SILENCES,
    Course,
    Do,
    Failed,
    Step,
    Trouble,
)


def course(random: float = 1.0) -> Course:
    return Course(lambda: random)


def watching(random: float = 1.0) -> Course:
    found = course(random)
    found.listed("10")
    found.opened()
    return found


def away(retry_after: float = 0.0) -> Failed:
    return Failed(Trouble.AWAY, "connection refused", retry_after)


def refused(found: Course, times: int) -> list[float]:
    """The delays after so many refusals."""
    delays = []
    for _ in range(times):
        found.failed(Failed(Trouble.FORBIDDEN, "no role"))
        delays.append(found.step.after)
    return delays


MISSING = Failed(Trouble.NOT_FOUND, "404")


def test_first_a_list_then_a_watch_from_it():
    found = course()
    assert found.step == Step(Do.LIST, 0.0)
    found.listed("10")
    assert (found.step, found.resource_version) == (Step(Do.WATCH, 0.0), "10")


def test_a_watch_that_ends_by_its_timeout_goes_on_from_the_last_version():
    found = watching()
    found.moved("12")
    found.ended(400.0)
    assert (found.step, found.resource_version) == (Step(Do.WATCH, 0.0), "12")


def test_a_watch_that_ends_at_once_again_and_again_is_no_busy_loop():
    found = watching()
    delays = []
    for _ in range(8):
        found.ended(0.01)
        delays.append(found.step.after)
    assert delays == sorted(delays)
    assert delays[0] > 0
    assert delays[-1] == LONGEST_DELAY


def test_an_outage_is_waited_out_with_growing_delays_and_the_watch_goes_on_where_it_was():
    found = watching(random=0.0)
    delays = []
    for _ in range(8):
        found.failed(away())
        assert found.step.do is Do.WATCH
        delays.append(found.step.after)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]
    assert found.resource_version == "10"
    found.opened()
    assert found.trouble is None
    found.failed(away())
    assert found.step.after == 4.0  # it has only opened so far
    found.moved("11")
    found.failed(away())
    assert found.step.after == 0.1


def test_a_single_failure_is_nobodys_business_and_the_second_is_told_once():
    found = watching()
    found.failed(away())
    assert found.trouble is None
    found.failed(away())
    found.failed(Failed(Trouble.AWAY, "503: shutting down"))
    assert found.trouble == "connection refused"
    refused(found, DOUBTED + 1)
    assert found.trouble == "no role"
    found.listed("11")
    assert found.trouble is None


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 0.2), (5.0, 5.0), (9999.0, LONGEST_ASKED)])
def test_the_apiserver_may_ask_for_patience_within_reason(asked: float, waited: float):
    found = watching()
    found.failed(away(asked))
    assert found.step == Step(Do.WATCH, waited)


def test_an_expired_version_asks_for_a_list():
    found = watching()
    found.failed(Failed(Trouble.EXPIRED, "too old"))
    assert found.resource_version is None
    assert found.step == Step(Do.LIST, EXPIRED_SPREAD)
    assert found.trouble is None


def test_versions_that_expire_at_once_again_and_again_are_no_busy_loop():
    found = watching()
    delays = []
    for _ in range(8):
        found.failed(Failed(Trouble.EXPIRED, "too old"))
        delays.append(found.step.after)
    assert delays[-1] == LONGEST_DELAY


@pytest.mark.parametrize("trouble", [Trouble.EXPIRED, Trouble.BROKEN])
def test_watches_that_never_get_further_than_their_list_are_no_busy_loop_of_lists(trouble: Trouble):
    """A list is well, and its watch expires at once, for ever: each list is all there is, so they become seldom."""
    found = course()
    delays, told = [], []
    for number in range(DOUBTED + 6):
        found.listed(str(number))
        found.opened()
        found.failed(Failed(trouble, "too old"))
        assert found.step.do is Do.LIST
        delays.append(found.step.after)
        told.append(found.trouble)
    assert delays[-1] == LONGEST_DELAY
    assert told == [None] * DOUBTED + ["too old"] * 6
    found.listed("99")
    found.opened()
    assert found.trouble == "too old"
    found.moved("100")
    assert found.trouble is None
    found.failed(Failed(Trouble.EXPIRED, "too old"))
    assert found.step == Step(Do.LIST, EXPIRED_SPREAD)


def test_what_cannot_be_understood_is_not_asked_for_again():
    found = watching()
    found.failed(Failed(Trouble.BROKEN, "no JSON"))
    assert (found.step.do, found.resource_version) == (Do.LIST, None)
    assert found.step.after > 0


def test_a_missing_role_is_told_within_seconds_and_tried_slowly():
    found = course()
    assert sum(refused(found, DOUBTED)) < 4.0
    assert found.trouble is None
    refused(found, 1)
    assert found.trouble == "no role"
    assert found.step == Step(Do.LIST, FORBIDDEN_DELAY * 1.25)


def test_an_apiserver_that_starts_refuses_all_at_first_and_is_asked_again_soon():
    """It knows no roles yet; after an outage, however long, that is no time to wait."""
    found = watching()
    for _ in range(10):
        found.failed(away())
    assert refused(found, 1) == [FIRST_DELAY]
    assert found.trouble == "connection refused"
    found.opened()
    assert found.trouble is None
    assert sum(refused(found, DOUBTED)) < 4.0  # refusals of another time do not count


def test_a_resource_is_gone_only_when_two_looks_in_a_row_say_so():
    found = watching()
    found.failed(MISSING)
    assert found.step.do is Do.LOOK
    assert found.looked(found=False) is False
    assert found.step == Step(Do.LOOK, CONFIRM_DELAY * 1.5)
    assert found.looked(found=False) is True
    assert (found.absent, found.resource_version, found.trouble) == (True, None, None)
    assert found.step == Step(Do.LOOK, POLL_DELAY * 1.25)
    assert found.looked(found=False) is False  # no news
    found.looked(found=True)
    assert found.step == Step(Do.LIST, 0.0)
    found.listed("20")
    assert found.absent is False


def test_an_apiserver_that_starts_does_not_look_like_a_deleted_crd():
    """It says 404 for a moment, then breaks off, then says 404 again, then serves."""
    found = watching()
    found.failed(MISSING)
    assert not found.looked(found=False)
    found.failed(away())
    assert found.step.do is Do.LOOK
    assert not found.looked(found=False)
    found.looked(found=True)
    found.failed(MISSING)
    assert not found.looked(found=False)
    assert not found.absent


def test_a_resource_that_discovery_has_and_the_list_has_not_is_no_busy_loop():
    found = course()
    delays = []
    for _ in range(8):
        found.failed(MISSING)
        delays.append(found.step.after)
        found.looked(found=True)
    assert delays[-1] == LONGEST_DELAY


OUTCOMES = st.one_of(
    st.sampled_from(Trouble).map(lambda trouble: ("failed", trouble)),
    st.tuples(st.just("looked"), st.booleans()),
    st.sampled_from([("listed", None), ("opened", None), ("moved", None)]),
    st.tuples(st.just("ended"), st.floats(0, 600)),
)


@given(st.lists(OUTCOMES, max_size=30), st.floats(0, 1))
def test_whatever_happens_there_is_a_next_step(outcomes: list[tuple[str, object]], random: float):
    found = Course(lambda: random)
    for number, (what, said) in enumerate(outcomes):
        match what:
            case "failed":
                found.failed(Failed(said, "x"))
            case "looked":
                found.looked(found=bool(said))
            case "ended":
                found.ended(said)
            case "opened":
                found.opened()
            case _:
                getattr(found, what)(str(number))
        assert 0 <= found.step.after <= FORBIDDEN_DELAY * 1.25


def test_watches_that_stay_silent_ask_for_a_list():
    """One may be a network that is gone; after some it is the version that the apiserver has never heard of."""
    found, silent = watching(), Failed(Trouble.AWAY, "it brings nothing", silent=True)
    for _ in range(SILENCES - 1):
        found.failed(silent)
        assert found.step.do is Do.WATCH
        assert found.resource_version == "10"
        found.opened()
    found.failed(silent)
    assert found.step.do is Do.LIST
    assert found.resource_version is None
    found.listed("7")
    for _ in range(3 * SILENCES):  # bookmarks come, and no list is asked for
        found.opened()
        found.moved("8")
        found.failed(silent)
        assert found.step.do is Do.WATCH
