"""A policy becomes a document that makes an equal policy, and comes back from the store after a restart."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.documents import policy, split, to_service
from tests.support.memories import files, table
from translator.objects import ObjectInvalid, Ref, TrafficPolicy, parse
from translator.objects.fields import duration
from xdserve.store import Accepted
from xdserve.store.policies import document

ROOT = Path(__file__).parents[3]
TEXTS = sorted([*ROOT.glob("tests/golden/*/in.yaml"), *ROOT.glob("examples/*/*.yaml")])
IRIS = Ref("serving.kserve.io", "InferenceService", "models", "iris")
WINE = IRIS._replace(name="wine")


def again(found):
    return parse(json.loads(json.dumps(document(found))))


# -- Documents -------------------------------------------------------------------------------------------------------


def read(path):
    try:
        return list(yaml.safe_load_all(path.read_text()))
    except yaml.YAMLError:
        return []


def written():
    """Every policy that is good, by the file it is written in."""
    for path in TEXTS:
        for one in read(path):
            if isinstance(one, dict) and one.get("kind") == "TrafficPolicy":
                try:
                    yield pytest.param(parse(one), id=f"{path.parent.name}-{one['metadata']['name']}")
                except ObjectInvalid:
                    continue


WRITTEN = list(written())


def test_there_are_some():
    assert len(WRITTEN) > 40


@pytest.mark.parametrize("found", WRITTEN)
def test_every_policy_of_golden_cases_and_examples_comes_back(found):
    assert again(found) == found


NAMES = ["stable", "v2", "v3"]
labels = st.sampled_from(NAMES)
texts = st.text(
    # What parts a query is in none of its values.
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="&# "),
    min_size=1,
    max_size=9,
)
durations = st.lists(
    st.tuples(st.integers(0, 99_999), st.sampled_from(["h", "m", "s", "ms"])), min_size=1, max_size=4
).map(lambda parts: "".join(f"{number}{unit}" for number, unit in parts))
positive = durations.filter(lambda said: any(digit in said for digit in "123456789"))
stickies = st.one_of(
    st.fixed_dictionaries({"by": st.just("Cookie")}, optional={"name": st.just("c"), "ttl": positive}),
    st.just({"by": "Header", "name": "X-User"}),
)
values = st.one_of(
    st.fixed_dictionaries({"name": labels, "value": texts}, optional={"type": st.just("Exact")}),
    st.fixed_dictionaries({"name": labels, "type": st.just("Present")}, optional={"value": st.none()}),
    st.fixed_dictionaries({"name": labels, "type": st.just("RegularExpression"), "value": st.just("a.*[0-9]")}),
)
lists = st.lists(values, max_size=2)
matches = st.fixed_dictionaries(
    {},
    optional={
        "headers": lists,
        "cookies": lists,
        "queryParams": lists,
        "method": st.sampled_from(["GET", "POST"]),
        "path": st.sampled_from([{"value": "/v1"}, {"type": "RegularExpression", "value": "/v[12]"}]),
    },
)
splits = st.lists(
    st.fixed_dictionaries({"backend": labels}, optional={"weight": st.integers(0, 9), "priority": st.integers(0, 7)}),
    unique_by=lambda share: share["backend"],
)
timeouts = st.fixed_dictionaries({}, optional={"request": durations, "idle": st.none() | durations})
routes = {"split": splits, "sticky": st.none() | stickies}
rules = st.fixed_dictionaries(
    {"name": labels}, optional={**routes, "matches": st.lists(matches, max_size=2), "timeouts": timeouts}
)
policies = st.fixed_dictionaries(
    {},
    optional={
        **routes,
        "rules": st.lists(rules, unique_by=lambda rule: rule["name"]),
        "timeouts": st.fixed_dictionaries({}, optional={"connect": positive, "request": durations}),
        "backends": st.lists(
            labels.map(lambda name: to_service(name, name, whenUnready="Fail")), unique_by=lambda one: one["name"]
        ),
    },
)
metadata = st.fixed_dictionaries(
    {"name": labels},
    optional={
        "namespace": st.sampled_from(["models", "", None]),
        "annotations": st.none() | st.dictionaries(texts, texts, max_size=2),
        "creationTimestamp": st.sampled_from([None, "2026-01-01T00:00:00Z"]),
        "generation": st.integers(1, 9),
        "uid": texts,
    },
)


@given(said=policies, named=metadata)
def test_every_policy_comes_back(said, named):
    found = parse({**policy(**said), "metadata": named, "status": {"conditions": []}})
    assert isinstance(found, TrafficPolicy)
    assert again(found) == found
    assert document(again(found)) == document(found)


@given(said=durations)
@example("99999h99999h99999h99999h")
@example("99999h99999h99999h99999m")
@example("99999h99999h99999m99999ms")
def test_every_duration_comes_back(said):
    found = parse(policy(timeouts={"request": said}))
    assert again(found).spec.timeouts.request == found.spec.timeouts.request


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0s"), (1, "1ms"), (1500, "1500ms"), (300_000, "5m"), (5_400_000, "90m"), (100_000_001, "27h46m40001ms")],
)
def test_a_duration_is_written_in_few_parts(milliseconds, text):
    assert duration(milliseconds) == text


def test_what_no_text_says_is_refused():
    with pytest.raises(ValueError, match="no duration"):
        duration(400_000 * 3_600_000)


# -- In the store ----------------------------------------------------------------------------------------------------


def accepted(target=IRIS, weight=10, file="policy.yaml"):
    found = parse(policy(target.name, split=split(predictor=100 - weight, v2=weight)))
    return target, Accepted(found, file)


def test_policies_come_back_once(reopen):
    said = [accepted(), accepted(WINE, file="d\udcffir/wine.yaml")]
    assert reopen().save([], policies=said) == 2
    store = reopen()
    assert store.policies() == dict(said)
    assert store.policies() == {}
    assert store.load() == {}


def test_what_is_known_already_is_not_written(reopen, path):
    said = [accepted(), (WINE, None)]
    reopen().save([], policies=said)
    store = reopen()
    before = files(path)
    assert store.save([], policies=said) == 0
    assert files(path) == before


def test_another_policy_or_file_replaces_and_none_deletes(reopen):
    store = reopen()
    for said in accepted(), accepted(weight=20), accepted(weight=20, file="moved.yaml"):
        assert store.save([], policies=[said]) == 1
        store = reopen()
        assert store.policies() == dict([said])
    assert store.save([], policies=[(IRIS, None)]) == 1
    assert reopen().policies() == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accepted SET document = replace(document, '90', '91')",
        "UPDATE accepted SET target = replace(target, 'iris', 'rose')",
        "UPDATE accepted SET file = x'00'",
        "UPDATE accepted SET file = 'text'",
        "UPDATE accepted SET digest = 7",
        "UPDATE accepted SET document = x'ff'",
    ],
)
def test_a_row_that_was_altered_is_not_believed(reopen, path, statement):
    store = reopen()
    store.save([], policies=[accepted()])
    store.close()
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()
    with capture_logs() as lines:
        assert reopen().policies() == {}
    assert [(line["event"], line["cause"]) for line in lines] == [("last good versions begun anew", "it is damaged")]


def test_a_policy_of_other_rules_is_left_out_alone(reopen, monkeypatch):
    """A later program may allow less."""
    before = document(accepted()[1].policy)
    before["spec"]["split"][0]["weight"] = -1
    monkeypatch.setattr("xdserve.store.policies.document", lambda _: before)
    store = reopen()
    store.save([], policies=[accepted()])
    monkeypatch.undo()
    store.save([], policies=[accepted(WINE)])
    with capture_logs() as lines:
        store = reopen()
    assert list(store.policies()) == [WINE]
    (line,) = lines
    assert line["event"] == "last good policy not allowed any more"
    assert "spec.split[0].weight" in line["cause"]


def test_a_save_is_all_or_nothing(reopen, path):
    store = reopen()
    with pytest.raises(AttributeError):
        store.save([], policies=[accepted(), (WINE, "no policy")])
    store.close()
    assert table(path, "accepted") == []
