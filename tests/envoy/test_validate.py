"""`xdserve validate --envoy`: everything through a real Envoy, its words back at the object and field."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from tests.support.documents import backend, isvc, policy, split, to_service
from translator.envoy import routes as renderer
from translator.envoy.clusters import cluster
from translator.planners.options import Options
from xdserve import cli, pipeline
from xdserve.offline import validation
from xdserve.offline.envoy import words

DOCUMENTS = [
    isvc(),
    *backend("iris-predictor", 9000),
    *backend("v2", 9001),
    policy(
        backends=[to_service("v2", "v2")],
        split=split(predictor=9, v2=1),
        rules=[
            {
                "name": "testers",
                "matches": [{"headers": [{"name": "x-tester", "value": "true"}]}],
                "split": split(v2=1),
            },
            {"name": "others", "matches": [{"path": {"value": "/other"}}], "split": split(v2=1, predictor=1)},
        ],
    ),
    isvc("other"),
    *backend("other-predictor", 9002),
]
pytestmark = pytest.mark.usefixtures("log_as_found")

POLICY = "a.yaml document 6: TrafficPolicy models/iris"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump_all(DOCUMENTS))
    return tmp_path / "a.yaml"


@pytest.fixture
def said(file, envoy_binary, capfd):
    """What the command says with Envoy's check on."""

    def run():
        code = cli.main(["validate", "a.yaml", "--envoy", "--strict"])
        out, err = capfd.readouterr()
        assert err == ""
        return code, out.splitlines()[:-1]

    return run


def test_what_is_well_passes(said):
    assert said() == (0, [])


def test_a_refused_route_is_told_by_its_rule(said, monkeypatch):
    """A fault of translation, of which there is none that a test could use: one is made."""
    rendered = renderer.Route

    def broken(**fields):
        action = fields.get("route")
        if fields["name"] == "others":
            weighted = action.weighted_clusters
            shares = [dataclasses.replace(share, weight=0) for share in weighted.clusters]
            fields["route"] = dataclasses.replace(
                action, weighted_clusters=dataclasses.replace(weighted, clusters=shares)
            )
        return rendered(**fields)

    monkeypatch.setattr(renderer, "Route", broken)
    assert said() == (
        1,
        [
            (
                f"{POLICY}: spec.rules[1]: Envoy refuses route others of host main, routes models/iris, "
                "gateway models/iris: Sum of weights in the weighted_cluster must be greater than 0."
            )
        ],
    )


def test_a_refused_cluster_is_told_by_its_backend(said, monkeypatch):
    def broken(service, found):
        made = cluster(service, found)
        if found.name == "v2":
            made.message.lb_policy = made.message.lb_policy.__class__(6)  # an extension that is not there
        return made

    monkeypatch.setattr(pipeline.envoy, "cluster", broken)
    code, lines = said()
    assert code == 1
    assert len(lines) == 1
    start = f"{POLICY}: spec.backends[0].ref: Envoy refuses clusters models/iris/v2, gateway models/iris: "
    assert lines[0].startswith(start)


def test_a_route_to_nowhere_is_told_by_its_gateway(said, monkeypatch):
    monkeypatch.setattr(renderer.names, "route_configuration", lambda service: f"{service.namespace}/{service.name}x")
    code, lines = said()
    assert code == 1
    assert any("there are no routes models/other for this listener" in line for line in lines), lines


def test_many_gateways_take_few_runs(envoy_binary, file, monkeypatch):
    for number in range(50):
        name = f"m{number}"
        documents = [isvc(name), *backend(f"{name}-predictor", 9000)]
        (file.parent / f"{name}.yaml").write_text(yaml.safe_dump_all(documents))
    runs = []
    counted = validation.refusals.__globals__["Envoy"].__call__

    def count(envoy, parts):
        runs.append(len(parts))
        return counted(envoy, parts)

    monkeypatch.setattr(validation.refusals.__globals__["Envoy"], "__call__", count)
    request = validation.Request(paths=(file.parent,), options=Options(), strict=True, envoy=envoy_binary)
    assert validation.validate(request).said == []
    assert runs == [52]


def test_what_takes_too_many_runs_to_find_is_told_all_the_same(said, monkeypatch):
    monkeypatch.setattr("xdserve.offline.envoy.MOST_RUNS", 1)
    monkeypatch.setattr(renderer, "_reply", lambda *_: renderer.Route(name="bad", match=None))
    code, lines = said()
    assert code == 1
    assert len(lines) == 1
    assert "(one of 2 gateways, from this one on)" in lines[0]


@pytest.mark.parametrize("what", ["true", "text", "folder"])
def test_what_is_no_envoy_is_one_line_and_exit_2(what, file, capfd):
    named = {"true": "true", "text": str(file), "folder": str(file.parent)}[what]
    assert cli.main(["validate", "a.yaml", "--envoy-binary", named]) == 2
    out, err = capfd.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("xdserve: --envoy: ")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("x error initializing configuration '/t/b.json': missing ): (\n", "missing ): ("),
        (
            "error initializing configuration 'f': route: unknown cluster 'as is:g:g/v2'",
            "route: unknown cluster 'g/v2'",
        ),
        (
            (
                "error initializing configuration 'f': node { a }: Proto constraint validation failed "
                "(AValidationError.B: embedded message failed validation | "
                "caused by CValidationError.D: value must be less than 5)"
            ),
            "C.D: value must be less than 5",
        ),
        ("", ""),
        ("a\nb\x1b[1m", "a b\\u001b[1m"),
    ],
)
def test_envoys_words_are_one_line_without_what_it_was_shown(text, meant):
    assert words(text, {"g"}) == meant
