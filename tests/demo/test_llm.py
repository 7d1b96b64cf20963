"""What the steps with the language model make of answers."""

from __future__ import annotations

import json

import pytest

from xdserve.demo import llm
from xdserve.demo.driver import Tally
from xdserve.demo.play import Sample, samples_step


def event(content):
    return json.dumps({"choices": [{"delta": {"content": content}}]}).encode()


def test_a_stream_is_its_words_up_to_its_end():
    stream = llm.Stream()
    for content in ("", "word0", " word1"):
        llm._take(event(content), stream)
    assert (stream.words, stream.done) == (["word0", "word1"], False)
    llm._take(b"[DONE]", stream)
    assert stream.done


@pytest.mark.parametrize(
    ("order", "held"),
    [([0, 1, 2, 3, 4, 5], True), ([1, 0, 2, 3, 5, 4], True), ([2, 0, 1], False), ([0, 1, 2, 4, 5, 3], False)],
)
def test_answers_that_run_at_the_same_time_may_change_places_and_no_others(order, held):
    assert llm._in_order(order) is held


def tally(lost=0, **variants):
    found = Tally(lost=lost)
    found.variants.update(variants)
    found.statuses[200] = sum(variants.values())
    return found


def test_samples_hold_if_each_does():
    good = Sample(kind="v1", wanted={"stable": 0.5, "v2": 0.5}, tally=tally(stable=300, v2=310))
    other = Sample(kind=":explain", wanted={"explainer": 1.0}, tally=tally(explainer=99, stable=1))
    lost = Sample(kind=":explain", wanted={"explainer": 1.0}, tally=tally(explainer=99, lost=1))
    assert samples_step("step", [good], 0).held
    assert not samples_step("step", [good, other], 0).held
    assert not samples_step("step", [good, lost], 0).held
    assert not samples_step("step", [good], 1).held
    step = samples_step("step", [good, lost], 0)
    assert step.expected == "v1 -> stable 50.0 %, v2 50.0 %; :explain -> explainer"
    assert step.seen.endswith(":explain -> explainer (1 failed)")
    assert (step.requests, step.failed) == (710, 1)
