"""Figures beside those of an earlier run; what the benchmarks measure is not tested, only how it is compared."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from benchmarks.compare import keys, ratio_text, read
from benchmarks.measure import Figure

EDIT = Figure("edit", 2.0, "ms")


def written(path, figures):
    path.write_text(json.dumps({"machine": {}, "figures": {"ack": [asdict(figure) for figure in figures]}}))
    return path


def test_figures_of_one_name_are_told_apart_by_their_order(tmp_path):
    found = read(written(tmp_path / "a.json", [EDIT, Figure("edit", 3.0, "ms"), Figure("push", 1.0, "s")]))
    was = found.of("ack")
    assert {key: figure.value for key, figure in was.items()} == {("edit", 0): 2.0, ("edit", 1): 3.0, ("push", 0): 1.0}
    assert list(keys([EDIT, EDIT])) == [("edit", 0), ("edit", 1)]
    assert found.of("codec") == {}


@pytest.mark.parametrize(
    ("value", "text"),
    {2.0: "1.00", 2.5: "1.25", 2.6: "1.30 worse", 1.6: "0.80", 1.5: "0.75 better", 0.0: "0.00 better"}.items(),
)
def test_what_changed_much_is_marked(value, text):
    assert ratio_text(Figure("edit", value, "ms"), EDIT) == text


def test_more_is_better_where_a_factor_is_gained():
    name = "encoder against betterproto2's bytes()"
    assert ratio_text(Figure(name, 60.0, "x"), Figure(name, 30.0, "x")) == "2.00 better"
    assert ratio_text(Figure(name, 0.0, "x"), Figure(name, 30.0, "x")) == "0.00 worse"


@pytest.mark.parametrize("was", [None, Figure("edit", 0.0, "ms"), Figure("edit", 2.0, "s")])
def test_without_a_like_figure_there_is_no_ratio(was):
    assert ratio_text(EDIT, was) == ""


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "{}", '{"figures": 1}', '{"figures": {"ack": 1}}', '{"figures": {"ack": [{"name": "a"}]}}'],
)
def test_another_file_is_refused_by_its_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json: not the figures of an earlier run"):
        read(path)


@pytest.mark.parametrize("value", ["fast", None, [1]])
def test_a_figure_that_is_no_number_is_refused(tmp_path, value):
    path = written(tmp_path / "other.json", [Figure("edit", value, "ms")])
    with pytest.raises(ValueError, match="not the figures of an earlier run"):
        read(path)
