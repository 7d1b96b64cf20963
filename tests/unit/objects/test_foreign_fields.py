"""Every field of KServe's and KubeDL's definitions is read, ignored with a reason, or nothing of a gateway."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import inference, isvc
from translator.objects import parse
from translator.objects.foreign_fields import INFERENCE, INFERENCE_SERVICE, MOST_NAMES, Level, Use
from translator.plan import Finding, Reason
from translator.planners.options import Options
from xdserve.offline import plan_all
from xdserve.sources.files import Files

DEFINITIONS = Path(__file__).parent / "definitions"
LEVELS = {"kserve": INFERENCE_SERVICE, "kubedl": INFERENCE}
ORDINARY: dict[str, Any] = {"array": [], "boolean": True, "integer": 7, "number": 0.5, "object": {}, "string": "v9"}
"""A value of each type, as a field may have it."""

VALUES = {
    "transformer": {"timeout": 7},
    "explainer": {"timeout": 7},
    "predictor": {"name": "v9"},
    "canary": [{"trafficPercent": 20, "predictor": {"name": "v9"}}],
    "predictors": [{"name": "v9"}],
}
"""Values of fields that say nothing when they are empty."""


def defined() -> Iterator[tuple[str, Level, str, str]]:
    for project, levels in LEVELS.items():
        definition = json.loads((DEFINITIONS / f"{project}.json").read_text())
        for level in levels:
            yield from ((project, level, name, kind) for name, kind in definition["levels"][level.path].items())


FIELDS = list(defined())


def document(project: str) -> dict[str, Any]:
    """One with all levels in it."""
    if project == "kubedl":
        return inference("hello", a=90, b=10)
    canary = {"trafficPercent": 10, "predictor": {"name": "v2"}}
    return isvc(transformer={}, explainer={}, canary=[canary])


def place(written: dict[str, Any], path: str) -> dict[str, Any]:
    """The map of a level in a document; the first of a list."""
    for step in path.split("."):
        written = written[step.removesuffix("[]")]
        written = written[0] if step.endswith("[]") else written
    return written


def findings(written: dict[str, Any]) -> list[Finding]:
    """What a user is told to have no effect, by everything that a server does with a file."""
    files = Files()
    files.update("objects.json", json.dumps(written).encode())
    assert files.errors() == []
    [found] = plan_all(files, Options()).findings.values()
    return [each for each in found if each.reason is Reason.FIELD_IGNORED]


def said(written: dict[str, Any]) -> dict[str, str]:
    return {each.origin.field: each.message for each in findings(written)}


@cache
def said_of_plain(project: str) -> frozenset[str]:
    return frozenset(said(document(project)))


def path_of(level: Level, name: str) -> str:
    return f"{level.path}.{name}".replace("[]", "[0]")


@pytest.mark.parametrize(("project", "levels"), LEVELS.items())
def test_the_fields_are_those_of_the_definitions(project: str, levels: tuple[Level, ...]):
    definition = json.loads((DEFINITIONS / f"{project}.json").read_text())
    names = {path: set(fields) for path, fields in definition["levels"].items()}
    assert {level.path: set(level.uses) for level in levels} == names
    assert {level.version for level in levels} == {definition["version"]}


@pytest.mark.parametrize(
    ("project", "level", "name", "kind"), FIELDS, ids=[f"{level.path}.{name}" for _, level, name, _ in FIELDS]
)
def test_a_field_is_read_or_ignored_with_a_reason_or_nothing_of_a_gateway(
    project: str, level: Level, name: str, kind: str
):
    written = document(project)
    place(written, level.path)[name] = VALUES.get(name, ORDINARY[kind])
    use = level.uses[name]
    told = said(written).keys() - said_of_plain(project)
    assert told == ({path_of(level, name)} if use is Use.IGNORED else set())
    assert (parse(written) != parse(document(project))) == (use in {Use.READ, Use.IGNORED})


@pytest.mark.parametrize(
    ("project", "level", "name", "advice"),
    [
        ("kserve", "spec", "cannary", "did you mean canary?"),
        ("kserve", "spec", "canaryTrafficPercent", "it belongs in spec.predictor"),
        ("kserve", "spec", "Transformer", "did you mean transformer?"),
        ("kserve", "spec", "minReplicas", "it belongs in spec.predictor"),
        ("kserve", "spec", "default", "did you mean predictor?"),
        ("kserve", "spec.predictor", "timeoutSeconds", "did you mean timeout?"),
        ("kserve", "spec.predictor", "requestTimeout", "did you mean timeout?"),
        ("kserve", "spec.predictor", "minReplica", "did you mean minReplicas?"),
        ("kserve", "spec.predictor", "hostipc", "did you mean hostIPC?"),
        ("kserve", "spec.predictor", "canary", "it belongs in spec"),
        ("kserve", "spec.predictor", "trafficPercent", "it belongs in spec.canary[]"),
        ("kserve", "spec.predictor", "art", "it belongs in spec.explainer"),
        ("kserve", "spec.transformer", "model", "it belongs in spec.predictor"),
        ("kserve", "spec.transformer", "name", None),
        ("kserve", "spec.explainer", "timeOut", "did you mean timeout?"),
        ("kserve", "spec.canary[]", "weight", "did you mean trafficPercent?"),
        ("kserve", "spec.canary[]", "canaryTrafficPercent", "did you mean trafficPercent?"),
        ("kserve", "spec.canary[]", "model", "it belongs in spec.canary[].predictor"),
        ("kserve", "spec.canary[].predictor", "trafficPercent", "it belongs in spec.canary[]"),
        ("kserve", "spec.predictor", "ephemeralContainers", None),
        ("kserve", "spec.predictor", "somethingOfLater", None),
        ("kubedl", "spec.predictors[]", "trafficPercentage", "did you mean trafficWeight?"),
        ("kubedl", "spec.predictors[]", "trafficweight", "did you mean trafficWeight?"),
        ("kubedl", "spec.predictors[]", "framework", "it belongs in spec"),
        ("kubedl", "spec", "predictor", "did you mean predictors?"),
        ("kubedl", "spec", "modelVersion", "it belongs in spec.predictors[]"),
    ],
)
def test_an_unknown_field_is_told_with_the_one_that_is_meant(project: str, level: str, name: str, advice: str | None):
    written = document(project)
    place(written, level)[name] = 1
    version = "KServe 0.20" if project == "kserve" else "KubeDL of March 2024"
    words = f"is unknown to {version} here, so it is not used"
    field = f"{level}.{name}".replace("[]", "[0]")
    assert said(written)[field] == (f"{words}; {advice}" if advice else words)


def test_a_null_is_not_there():
    assert said(isvc(cannary=None)) == {}


def test_what_is_unknown_makes_another_object():
    """Else a server would not plan again when it comes or goes, and would keep its old findings."""
    assert parse(isvc(cannary=1)) != parse(isvc())
    assert parse(isvc(cannary=1)) != parse(isvc(cannaries=1))
    assert parse(isvc(cannary=1)) == parse(isvc(cannary=2))


def test_the_canarys_timeout_may_be_the_predictors():
    canary = {"trafficPercent": 10, "predictor": {"name": "v2", "timeout": 30}}
    assert said(isvc(predictor={"timeout": 30}, canary=[canary])) == {}
    assert set(said(isvc(predictor={"timeout": 31}, canary=[canary]))) == {"spec.canary[0].predictor.timeout"}


def test_no_limit_of_requests_is_no_finding():
    assert said(isvc(predictor={"containerConcurrency": 0})) == {}


def test_of_many_unknown_fields_the_first_are_told_and_their_number():
    names = [f"x{number:06}" for number in range(200_000)]
    told = said(isvc(**dict.fromkeys(names, 1)))
    assert list(told)[:-1] == [f"spec.{name}" for name in names[:MOST_NAMES]]
    assert told["spec"] == "has 200,000 unknown fields, which are not used; 16 are named"


def test_the_bound_is_for_the_whole_object():
    written = inference("hello", **{f"p{number}": 1 for number in range(1000)})
    for predictor in written["spec"]["predictors"]:
        predictor |= {"trafficPercentage": 5, "x": 1}
    told = said(written)
    assert len(told) == MOST_NAMES + 1
    assert told["spec"].startswith("has 2,000 unknown fields")


@pytest.mark.parametrize("name", ["x" * 1_000_000, "\x1b[2J\n" * 1000, "{{ x }}", "unknown fields", "", " ", "ü"])
def test_any_name_is_told_in_a_short_line(name: str):
    [found] = findings(isvc(**{name: 1}))
    assert found.message == "is unknown to KServe 0.20 here, so it is not used"
    assert len(found.origin.field) < 120
    assert str(found).isprintable()


def test_of_a_long_name_little_is_kept():
    spec = parse(isvc(**{"x" * 1_000_000: 1})).spec
    assert len(pickle.dumps(spec)) < 10_000


def test_unknown_names_are_told_at_every_level():
    for project, levels in LEVELS.items():
        written = document(project)
        for level in levels:
            place(written, level.path)["zzz"] = 1
        assert {field for field in said(written) if field.endswith(".zzz")} == {path_of(each, "zzz") for each in levels}
