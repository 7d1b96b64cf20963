"""`xdserve validate`: all errors at once, and no failure for what only a cluster can know."""

from __future__ import annotations

import copy
import errno
import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.documents import backend, endpoints, inference, isvc, policy, service, split, to_service
from xdserve import cli

EXAMPLES = Path(__file__).parents[2] / "examples"


pytestmark = pytest.mark.usefixtures("log_as_found")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write documents to files of an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def write_files(**files):
        for name, content in files.items():
            path = tmp_path / f"{name}.yaml"
            path.write_text(content if isinstance(content, str) else yaml.safe_dump_all(content))

    return write_files


@pytest.fixture
def validate(capfd):
    """Run the command: its exit code and its lines, without the last one, which sums up."""

    def run(*arguments):
        code = cli.main(["validate", *arguments])
        out, err = capfd.readouterr()
        assert err == ""
        return code, out.splitlines()[:-1]

    return run


def test_the_examples_are_well(capfd):
    assert cli.main(["validate", str(EXAMPLES), "--strict"]) == 0
    assert capfd.readouterr() == ("10 files, 26 objects, 3 gateways: 0 errors, 0 warnings, 0 notes\n", "")


def test_all_errors_are_said_at_once_each_in_a_line_with_its_place(write, validate):
    bad = policy(split=[{"backend": "predictor", "weight": -1}], retries={})
    write(a=[isvc(), bad], b="a: [\n", c=[policy("other", split=split(stable=1))], d=[{"kind": "Service"}])
    code, lines = validate(".")
    assert code == 1
    assert lines == [
        "a.yaml document 2: TrafficPolicy models/iris: spec.retries: found this field, not yet supported",
        "a.yaml document 2: TrafficPolicy models/iris: spec.split[0].weight: found -1, allowed 0..1000000",
        "b.yaml document 1: line 2, column 1: did not find expected node content while parsing a flow node",
        "c.yaml document 1: TrafficPolicy models/other: spec.targetRef: InferenceService models/other not found",
        "d.yaml document 1: apiVersion: found nothing, allowed a string",
        ("note: a.yaml document 1: InferenceService models/iris: spec.predictor: "
        "Service models/iris-predictor not found"),
    ]  # fmt: skip


def test_kinds_that_are_not_read_are_notes_each_with_its_place(write, validate):
    graph = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "InferenceGraph", "metadata": {"name": "g"}}
    old = {**isvc(), "apiVersion": "serving.kubeflow.org/v1beta1"}
    unnamed = {"apiVersion": "v1", "kind": "Endpoints"}
    write(
        a=[graph, {**graph, "metadata": {"name": "h"}}, old],
        b=[unnamed, {"apiVersion": "apps/v1", "kind": "Deployment"}],
    )
    for arguments in (["."], [".", "--strict"]):
        code, lines = validate(*arguments)
        assert code == 0
        assert [line.partition(" not ")[0] for line in lines] == [
            "note: a.yaml document 1: InferenceGraph default/g: kind: InferenceGraph is",
            "note: a.yaml document 2: InferenceGraph default/h: kind: InferenceGraph is",
            "note: a.yaml document 3: InferenceService models/iris: apiVersion: serving.kubeflow.org is",
            "note: b.yaml document 1: kind: Endpoints are",
        ]
    assert validate("a.yaml", "--context", "b.yaml")[1] == lines[:3]
    assert validate(".", "--quiet")[1] == []


def test_an_unknown_field_is_a_warning_with_its_place(write, validate):
    misspelt = inference("hello", a=90, b=10)
    misspelt["spec"]["predictors"][0]["trafficPercentage"] = 90
    write(a=[isvc(), misspelt])
    code, lines = validate(".")
    assert code == 0
    assert [line for line in lines if not line.startswith("note: ")] == [
        (
            "warning: a.yaml document 2: Inference models/hello: spec.predictors[0].trafficPercentage: "
            "is unknown to KubeDL of March 2024 here, so it is not used; did you mean trafficWeight?"
        )
    ]


def test_a_template_is_told_as_one(write, validate):
    write(a="metadata:\n  name: {{ .Values.name }}\n")
    assert validate("a.yaml") == (1, ["a.yaml document 1: line 2, column 9: found {{, render the template first"])


@pytest.mark.parametrize("options", [(), ("-o", "json")])
def test_translate_says_the_same_lines(options, write, validate, capfd):
    """Of the same files, whatever is wrong with them: file and document are named."""
    graph = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "InferenceGraph", "metadata": {"name": "g"}}
    bad = policy(split=[{"backend": "predictor", "weight": -1}])
    write(a=[isvc(cannary=[]), bad, graph], b="a: [\n", c=[policy("other", split=split(stable=1))])
    code, lines = validate(".", "--strict")
    assert code == 1
    assert len(lines) == 6
    assert all(" document " in line for line in lines)
    assert cli.main(["translate", ".", *options]) == 1
    assert capfd.readouterr().err.splitlines() == lines


def test_planning_is_checked_too(write, validate):
    first, second = policy(split=split(nobody=1)), policy()
    second["metadata"]["name"] = "later"
    write(a=[isvc(), *backend("iris-predictor", 9000), first, second])
    code, lines = validate("a.yaml")
    assert code == 1
    assert lines == [
        "a.yaml document 4: TrafficPolicy models/iris: spec.split[0].backend: found nobody, allowed predictor",
        (
            "a.yaml document 5: TrafficPolicy models/later: spec.targetRef: "
            "InferenceService models/iris already has the older TrafficPolicy models/iris"
        ),
    ]


def test_a_warning_fails_nothing_not_even_strictly(write, validate):
    write(a=[isvc(predictor={"canaryTrafficPercent": 10}), *backend("iris-predictor", 9000)])
    code, lines = validate("a.yaml", "--strict")
    assert code == 0
    assert [line.partition(": ")[0] for line in lines] == ["warning"]


# What is in the files, and whether what is missing then fails the check.
NAMED = policy(backends=[to_service("v2", "v2")], split=split(predictor=9, v2=1))
CANARY = isvc(canary=[{"predictor": {"name": "v2"}, "trafficPercent": 10}])
OF_NOBODY = {"name": "v2", "ref": {"group": "serving.kserve.io", "kind": "InferenceService", "name": "v2"}}
NO_PORT = {"name": "v2", "ref": {"kind": "Service", "name": "v2", "port": 81}}
UNREADY = [service("iris-predictor"), endpoints("iris-predictor", 9000, ready=False)]
ONLY_IN_A_CLUSTER = {
    "an InferenceService alone": ([isvc()], False),
    "an Inference alone": ([inference("digits", a=1, b=1)], False),
    "a policy that names a Service": ([isvc(), NAMED], False),
    "its own Service, whose endpoints a cluster makes": ([isvc(), NAMED, service("v2")], False),
    "another object's Service": ([isvc(), service("elsewhere")], False),
    "a Service without endpoints": ([isvc(), service("iris-predictor")], False),
    "a canary whose stable one is here": ([CANARY, *backend("iris-predictor", 9000)], True),
    "a canary without endpoints beside one that has some": (
        [CANARY, *backend("iris-predictor", 9000), service("iris-v2-predictor")], True,
    ),
    "a picture of a cluster, in which nothing is ready": ([isvc(), *UNREADY], True),
    "a policy's Service missing in a picture of a cluster": ([isvc(), NAMED, *backend("iris-predictor", 9000)], True),
    "a port that the Service has not": (
        [isvc(), policy(backends=[NO_PORT]), service("v2")],
        True,
    ),
    "an InferenceService that a policy names": (
        [isvc(), policy(backends=[OF_NOBODY])],
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONLY_IN_A_CLUSTER)
def test_what_only_a_cluster_can_know_fails_nothing_unless_asked(case, write, validate):
    documents, fails = ONLY_IN_A_CLUSTER[case]
    write(a=copy.deepcopy(documents))
    code, lines = validate("a.yaml")
    assert code == int(fails), lines
    assert any(line.startswith("a.yaml document") for line in lines) is fails
    assert lines
    assert validate("a.yaml", "--strict")[0] == 1


def test_the_context_is_there_and_is_not_asked_about(write, validate):
    broken = policy("other", split=[{"backend": "a", "weight": -1}])
    write(a=[policy(split=split(predictor=1))], b=[isvc(), broken, *backend("iris-predictor", 9000)])
    assert validate("a.yaml") == (
        1,
        ["a.yaml document 1: TrafficPolicy models/iris: spec.targetRef: InferenceService models/iris not found"],
    )
    assert validate("a.yaml", "--context", ".", "--strict") == (0, [])
    assert validate("b.yaml", "--context", ".")[0] == 1


def test_a_file_is_what_it_says_and_not_what_the_context_says(write, validate):
    """Overlays of one object in several folders are no conflict, but in one command they are."""
    write(a=[isvc(), policy(split=split(predictor=1))], z=[policy(split=split(nobody=1))])
    assert validate("a.yaml", "--context", "z.yaml")[0] == 0
    assert validate("z.yaml", "--context", "a.yaml")[0] == 1
    code, lines = validate("a.yaml", "z.yaml")
    assert code == 1
    assert (
        "z.yaml document 1: TrafficPolicy models/iris: metadata.name: is written already in a.yaml document 2" in lines
    )


def test_a_file_named_twice_is_read_once(write, capfd):
    write(a=[isvc(), *backend("iris-predictor", 9000)])
    assert cli.main(["validate", "a.yaml", "./a.yaml", ".", str(Path.cwd() / "a.yaml")]) == 0
    assert capfd.readouterr().out.startswith("1 file, 3 objects, 1 gateway: ")


def test_files_of_one_name_in_two_folders_are_two_files(tmp_path, monkeypatch, validate):
    monkeypatch.chdir(tmp_path)
    for folder, document in (("one", isvc()), ("two", isvc("other"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.yaml").write_text(yaml.safe_dump(document))
    _, lines = validate("one", "two")
    assert [line.split()[1] for line in lines] == ["one/a.yaml", "two/a.yaml"]


def test_standard_input_is_a_file(monkeypatch, validate):
    text = yaml.safe_dump_all([isvc(), policy(split=split(nobody=1))]).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    code, lines = validate("-")
    assert code == 1
    assert lines[0].startswith("<stdin> document 2: TrafficPolicy models/iris: spec.split[0].backend: found nobody")


def test_quiet_says_errors_alone(write, capfd):
    write(a=[isvc(predictor={"canaryTrafficPercent": 10})], b=[policy("other")])
    assert cli.main(["validate", "a.yaml", "--quiet"]) == 0
    assert capfd.readouterr().out == ""
    assert cli.main(["validate", "a.yaml", "b.yaml", "-q"]) == 1
    assert len(capfd.readouterr().out.splitlines()) == 1


def test_json_has_the_entries_of_the_errors_endpoint(write, capfd):
    write(a=[isvc(), policy(split=split(nobody=1))])
    assert cli.main(["validate", "a.yaml", "-o", "json"]) == 1
    first, second = json.loads(capfd.readouterr().out)
    assert first == {
        "severity": "error",
        "source": {"file": "a.yaml", "document": 2},
        "object": "TrafficPolicy models/iris",
        "field": "spec.split[0].backend",
        "reason": "Invalid",
        "message": "found nobody, allowed predictor",
    }
    assert (second["severity"], second["reason"]) == ("note", "BackendNotFound")
    assert cli.main(["validate", str(EXAMPLES), "-o", "json"]) == 0
    assert json.loads(capfd.readouterr().out) == []


def test_objects_of_other_kinds_are_passed_over(write, validate):
    write(a=[{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}], b="# nothing but words\n")
    assert validate("a.yaml", "b.yaml", "--strict") == (0, [])


def test_nothing_is_coloured_in_a_pipe(write, validate):
    write(a=[policy("other")])
    assert "\x1b" not in "".join(validate("a.yaml")[1])


BOMB = b"a: &a [x]\n" + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in b"abcdefgh")
UNREADABLE = {
    "half": ("a.yaml", b"a: ["),
    "a name in two lines": ("a\nb.yaml", b"a: ["),
    "no text": ("a.yaml", b"\xff\xfe\x00a: \x80"),
    "an empty file": ("a.yaml", b""),
    "too much": ("a.yaml", b"#" * (16 * 1024 * 1024 + 1)),
    "a bomb": ("a.yaml", BOMB),
    "deep": ("a.json", b"[" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_a_line(what, tmp_path, monkeypatch, validate):
    monkeypatch.chdir(tmp_path)
    name, content = UNREADABLE[what]
    (tmp_path / name).write_bytes(content)
    for path in (name, "."):
        code, lines = validate(path)
        assert (code, len(lines)) == (1, 1)
        assert lines[0].isprintable()


def test_a_file_that_may_not_be_read_is_a_line(tmp_path, monkeypatch, validate):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").symlink_to("/proc/self/mem")  # can be opened, and not be read, also by root
    code, lines = validate("a.yaml")
    assert (code, lines) == (1, ["a.yaml: cannot be read: Input/output error"])


def test_a_directory_that_may_not_be_listed_is_a_line(write, tmp_path, monkeypatch, validate):
    write(a=[isvc()])
    (tmp_path / "sub").mkdir()
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    code, lines = validate(".")
    assert (code, lines[0]) == (1, "sub: cannot be listed: Permission denied")


def test_what_is_no_file_is_passed_over(write, tmp_path, validate):
    write(a=[service("iris")])
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "nowhere.yaml").symlink_to(tmp_path / "missing")
    assert validate(".") == (0, [])


def test_the_hook_checks_changed_files_among_the_others(write, validate):
    (hook,) = yaml.safe_load((EXAMPLES.parent / ".pre-commit-hooks.yaml").read_text())
    program, *command = [*hook["entry"].split(), *hook["args"]]
    assert (program, command[0], hook["require_serial"]) == ("xdserve", "validate", True)
    write(a=[policy(split=split(predictor=1))], b=[isvc()], c=[policy("iris", split=split(nobody=1))])
    assert validate(*command[1:], "a.yaml")[0] == 0
    assert validate(*command[1:], "c.yaml")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument 'PATH...'."),
        (("none.yaml",), "PATH: found 'none.yaml', allowed a file or directory that exists"),
        ((".", "--context", "none"), "PATH: found 'none', allowed a file or directory that exists"),
        ((".", "-o", "yaml"), "Invalid value for '--output' / '-o': 'yaml' is not one of 'text', 'json'."),
        ((".", "--domain", "a b"), None),
        ((".", "--envoy-binary", "none"), "--envoy: none is no program that can be run: name an Envoy binary"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["validate", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said is None or err == f"xdserve: {said}\n"


KEYS = st.sampled_from(["apiVersion", "kind", "metadata", "spec", "name", "split", "items"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(ANYTHING)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_there_is_no_traceback(tmp_path, capfd, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([content, {"kind": "List", "items": [content]}, policy(split=[content])]))
    assert cli.main(["validate", str(path)]) == 1
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


def test_a_mode_that_gateways_do_not_serve_is_a_warning(write, validate):
    knative = isvc(annotations={"serving.kserve.io/deploymentMode": "Serverless"})
    write(iris=[knative, *backend("iris-predictor", 8080)])
    assert validate("iris.yaml") == (
        0,
        [
            (
                "warning: iris.yaml document 1: InferenceService models/iris: "
                "metadata.annotations[serving.kserve.io/deploymentMode]: "
                "found Knative, which gateways do not serve; allowed Standard"
            )
        ],
    )


CA_OF = {"caRef": {"name": "service-ca"}}


@pytest.mark.parametrize(
    ("config_maps", "code", "line"),
    [
        ([], 0, "note: {} not found"),
        ([{"other": "x"}], 1, "{} has no key ca.crt"),
        ([{"ca.crt": "none"}], 1, "{} has no certificates in ca.crt that can be read (PEM)"),
    ],
)
def test_the_cluster_may_have_a_ca_that_is_not_in_the_files(write, validate, config_maps, code, line):
    made = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "service-ca", "namespace": "models"},
            "data": data,
        }
        for data in config_maps
    ]
    tls = policy(backends=[to_service("v2", "iris-v2", protocol="HTTPS", tls=CA_OF)], split=split(predictor=9, v2=1))
    write(a=[isvc(), *backend("iris-predictor", 8080), *backend("iris-v2", 8443), tls, *made])
    place = "a.yaml document 6: TrafficPolicy models/iris: spec.backends[0].tls.caRef: ConfigMap models/service-ca"
    assert validate("a.yaml") == (code, [line.format(place) + ": backend v2 answers 503"])
