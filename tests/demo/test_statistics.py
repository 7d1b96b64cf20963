"""The intervals are the exact ones: against published values and against sums made another way."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given, strategies

from xdserve.demo.statistics import agrees, interval, intervals, percentile, summary


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, table I, the Clopper-Pearson method at 95 %
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_agrees_with_published_intervals(successes, trials, low, high):
    assert interval(successes, trials, 0.05) == pytest.approx((low, high), abs=5e-5)


def test_none_and_all_have_closed_forms():
    assert interval(0, 50)[1] == pytest.approx(1 - (0.5e-6) ** (1 / 50))
    assert interval(50, 50) == (pytest.approx((0.5e-6) ** (1 / 50)), 1.0)


@given(trials=strategies.integers(1, 60), data=strategies.data())
def test_at_the_ends_of_the_interval_the_tails_have_half_the_error(trials, data):
    successes = data.draw(strategies.integers(0, trials))
    low, high = interval(successes, trials, 1e-3)
    assert 0 <= low <= successes / trials <= high <= 1
    if successes > 0:
        assert tail(range(successes, trials + 1), trials, low) == pytest.approx(0.5e-3, rel=1e-6)
    if successes < trials:
        assert tail(range(successes + 1), trials, high) == pytest.approx(0.5e-3, rel=1e-6)


def tail(counts, trials, share):
    return sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in counts)


def test_wide_enough_for_a_fair_split_and_narrow_enough_to_tell_it_from_another():
    assert agrees({"stable": 0.9, "v2": 0.1}, {"stable": 1807, "v2": 193})
    assert not agrees({"stable": 0.9, "v2": 0.1}, {"stable": 1000, "v2": 1000})
    assert not agrees({"stable": 0.9, "v2": 0.1}, {"stable": 2000})
    assert not agrees({"stable": 0.9, "v2": 0.1}, {})


def test_a_share_of_nothing_must_be_nothing():
    assert agrees({"stable": 1.0, "v2": 0.0}, {"stable": 2000, "v2": 0})
    assert not agrees({"stable": 1.0, "v2": 0.0}, {"stable": 1_000_000, "v2": 1})
    assert not agrees({"stable": 1.0}, {"stable": 1_000_000, "other": 1})


def test_the_error_is_shared_between_the_names():
    counts = {"a": 700, "b": 200, "c": 100}
    assert intervals(counts, 3e-6)["c"] == interval(100, 1000, 1e-6)
    assert intervals({"a": 0}) == {}


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_refuses_what_is_no_count(successes, trials):
    with pytest.raises(ValueError, match="no count of successes"):
        interval(successes, trials)


def test_percentile_is_by_nearest_rank():
    assert percentile([float(value) for value in range(1, 101)], 0.99) == 99
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([4.0], 0.5) == 4.0


def test_a_summary_has_the_figures_and_the_values():
    assert summary([3.0, 1.0, 2.00049]) == {"edits": 3, "median": 2.0, "p99": 3.0, "values": [3.0, 1.0, 2.0]}
