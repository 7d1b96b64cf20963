"""What the demo prints and writes."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console

from xdserve.demo.driver import Answer, Tally
from xdserve.demo.report import LiveReporter, PlainReporter, Step, percent, table, write

STEP = Step(
    name="canary", expected="stable 90.0 %, v2 10.0 %", seen="stable 90.5 %, v2 9.5 %", held=True, requests=2000,
    failed=0, wanted={"stable": 0.9, "v2": 0.1}, counts={"stable": 1810, "v2": 190},
)  # fmt: skip
LOST = dataclasses.replace(STEP, name="edit", held=False, failed=3, detail="[bold]why")


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=120)


def test_plain_lines_say_what_is_wanted_and_how_it_went(console):
    reporter = PlainReporter(console)
    reporter.begin("the canary", STEP.wanted, Tally())
    reporter.done(STEP)
    reporter.done(LOST)
    assert console.file.getvalue().splitlines() == [
        "... the canary (wanted: stable 90.0 %, v2 10.0 %)",
        "ok  canary: stable 90.5 %, v2 9.5 %",
        "NOT edit: stable 90.5 %, v2 9.5 %; [bold]why",
    ]


def test_bars_show_wanted_and_seen(console):
    reporter, tally = LiveReporter(console), Tally()
    tally.add(Answer(200, "v2", "", 0.0))
    reporter.begin("the canary", STEP.wanted, tally)
    console.print(reporter.live.get_renderable())
    text = console.file.getvalue()
    assert "the canary" in text
    assert [line.split()[-1] for line in text.splitlines() if "wanted" in line] == ["90.0%", "10.0%"]
    assert [line.split()[-1] for line in text.splitlines() if "seen" in line] == ["0.0%", "100.0%"]


def test_the_table_has_a_row_a_step(console):
    console.print(table([STEP, LOST]))
    rows = [line for line in console.file.getvalue().splitlines() if "2000" in line]
    assert [row.split("│")[-2].strip() for row in rows] == ["yes", "NO"]


def test_the_table_shows_the_words_of_others_as_they_are(console):
    console.print(table([dataclasses.replace(STEP, expected="[/ready] is 200", seen="metadata.labels[app] refused")]))
    text = console.file.getvalue()
    assert "[/ready] is 200" in text
    assert "metadata.labels[app] refused" in text


def test_the_figures_are_json_with_shares_and_intervals(tmp_path):
    write(tmp_path / "figures.json", [STEP, LOST], 3.0)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["held"], figures["seconds"], figures["error"]) == (False, 3.0, 1e-6)
    step = figures["steps"][0]
    assert step["observed"] == {"stable": 0.905, "v2": 0.095}
    assert step["interval"]["stable"][0] < 0.9 < step["interval"]["stable"][1]
    assert "edit_to_answer_ms" not in step


def test_a_step_without_any_answer_can_be_told():
    step = dataclasses.replace(STEP, counts={}, held=False)
    assert (step.as_json()["observed"], step.as_json()["interval"]) == ({}, {})
    assert percent({}) == "no answer"
