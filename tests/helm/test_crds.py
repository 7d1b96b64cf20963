"""The apiserver takes what xdserve takes: the CRDs against the models that they are made from."""

from __future__ import annotations

import contextlib
import copy
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import crds
from tests.support.documents import entrance, policy
from translator.objects import ObjectInvalid, parse

ROOT = Path(__file__).parents[2]
KINDS = ("TrafficPolicy", "ServiceGateway")

# What no schema can say within the apiserver's budget: these come as Accepted=False instead.
BEYOND_A_SCHEMA = re.compile(
    r"a regular expression of RE2|what cannot match a semicolon|matches of \d+ characters in all|each host once"
    r"|splits of \d+ shares in all|at most the limit"
)


def ours():
    for path in sorted([*ROOT.glob("tests/golden/*/in.yaml"), *ROOT.glob("examples/**/*.yaml")]):
        try:
            documents = list(yaml.safe_load_all(path.read_text()))
        except yaml.YAMLError:
            continue
        for index, document in enumerate(documents):
            if isinstance(document, dict) and document.get("kind") in KINDS:
                yield pytest.param(document, id=f"{path.parent.name}-{index}")


def problems(document):
    """What xdserve finds wrong; empty if it takes the object."""
    try:
        parse(document)
    except ObjectInvalid as invalid:
        return list(invalid.problems)
    return []


def agree(document):
    """The two say the same of an object, but for what no schema can say."""
    found, refused = problems(document), crds.refusals(document)
    if not found:
        assert refused == []
    elif not refused:
        assert [str(each) for each in found if not BEYOND_A_SCHEMA.search(each.allowed)] == []


@pytest.mark.parametrize("document", list(ours()))
def test_the_objects_of_examples_and_golden_cases_are_taken_or_refused_by_both(document):
    agree(document)


def changed(document, path, value):
    document = copy.deepcopy(document)
    at = document["spec"]
    *way, last = [int(word) if word.isdigit() else word for word in path.split(".")]
    for word in way:
        at = at[word]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return document


WHOLE = policy(
    backends=[
        {"name": "stable", "ref": {"group": "serving.kserve.io", "kind": "InferenceService", "name": "iris"}},
        {"name": "v2", "ref": {"name": "iris-v2", "port": 80}, "protocol": "H2C", "whenUnready": "Fail"},
        {
            "name": "v3",
            "ref": {"name": "iris-v3", "port": 8443},
            "protocol": "HTTPS",
            "tls": {
                "hostname": "v3.example.org",
                "caRef": {"kind": "ConfigMap", "name": "ca", "key": "service-ca.crt"},
            },
        },
    ],
    split=[{"backend": "stable", "weight": 90}, {"backend": "v2", "weight": 10, "priority": 1}],
    sticky={"by": "Cookie", "ttl": "1h"},
    rules=[
        {
            "name": "testers",
            "matches": [
                {
                    "headers": [{"name": "X-Tester", "value": "true"}, {"name": "a", "type": "Present"}],
                    "cookies": [{"name": "beta", "value": "1|2", "type": "RegularExpression"}],
                    "queryParams": [{"name": "debug", "type": "Prefix", "value": "y"}],
                    "path": {"value": "/v1/models"},
                    "method": "POST",
                }
            ],
            "split": [{"backend": "v2"}],
            "sticky": {"by": "Header", "name": "x-user"},
            "timeouts": {"request": "0s", "idle": "1h30m"},
        },
        {"name": "rest"},
    ],
    timeouts={"request": "10s", "idle": "5m", "connect": "300ms"},
    router={
        "modelRef": "org/iris-7b",
        "protocol": "openai",
        "maxConcurrency": 4,
        "overflow": "reject",
        "kvEndpoints": ["kv-1:6379"],
    },
)
GATEWAY = entrance(
    8080,
    hosts=["models.example.org", "*.Example.org"],
    replicas=3,
    resources={"requests": {"cpu": "0.5", "memory": "256Mi"}, "limits": {"cpu": 2, "memory": "1024Mi"}},
)


def test_a_policy_and_a_gateway_with_all_that_they_may_have_are_taken():
    assert (problems(WHOLE), crds.refusals(WHOLE)) == ([], [])
    assert (problems(GATEWAY), crds.refusals(GATEWAY)) == ([], [])


def test_what_is_null_is_left_out():
    document = changed(changed(WHOLE, "rules.1.split", None), "timeouts", None)
    assert (problems(document), crds.refusals(document)) == ([], [])


HEADER, COOKIE, QUERY, PATH = (
    f"rules.0.matches.0.{part}" for part in ("headers.0", "cookies.0", "queryParams.0", "path")
)
REFUSED = [
    ("targetRef", ...),
    ("targetRef.name", ...),
    ("targetRef.kind", ...),
    ("targetRef.kind", "Pod"),
    ("targetRef.group", ""),
    ("targetRef.group", ...),
    ("targetRef.group", "serving.kubedl.io"),
    ("backends.1.name", "stable"),
    ("backends.1.name", "V_2"),
    ("backends.1.name", "v2\n"),
    ("backends.1.protocol", "TCP"),
    ("backends.1.tls", {}),
    ("backends.2.protocol", "HTTP"),
    ("backends.2.tls.insecureSkipVerify", True),
    ("backends.2.tls.caRef.kind", "Secret"),
    ("backends.2.tls.caRef.name", ...),
    ("backends.2.tls.caRef.key", "a/b"),
    ("backends.2.tls.caRef.namespace", "other"),
    ("backends.2.tls.hostname", "*.example.org"),
    ("backends.2.tls.hostname", "V3.example.org"),
    ("backends.1.whenUnready", "Wait"),
    ("backends.1.ref", ...),
    ("backends.1.ref.port", ...),
    ("backends.1.ref.port", 0),
    ("backends.1.ref.port", "80"),
    ("backends.1.ref.sectionName", "x"),
    ("backends.1.ref.kind", "Hostname"),
    ("backends.0.ref.port", 80),
    ("backends.0.ref.group", ...),
    ("split.0.weight", -1),
    ("split.0.weight", 1_000_001),
    ("split.0.weight", "90"),
    ("split.0.weight", 0.5),
    ("split.0.weight", True),
    ("split.0.priority", 8),
    ("split.0.backend", ...),
    ("split.1.backend", "stable"),
    ("split.0", "stable"),
    ("split", {}),
    ("split", [{"backend": f"b{number}"} for number in range(65)]),
    ("sticky", {"by": "SourceIP"}),
    ("sticky", {"name": "x"}),
    ("sticky", {"by": "Header"}),
    ("sticky", {"by": "Header", "name": "x-user", "ttl": "1h"}),
    ("sticky", {"by": "Header", "name": "host"}),
    ("sticky", {"by": "Cookie", "name": "a=b"}),
    ("sticky", {"by": "Cookie", "ttl": "0s"}),
    ("sticky", {"by": "Cookie", "path": "/"}),
    ("timeouts.request", "1.5s"),
    ("timeouts.request", 10),
    ("timeouts.connect", "0s"),
    ("timeouts.connect", "00h000ms"),
    ("timeouts.total", "1s"),
    ("rules.1.name", "testers"),
    ("rules.1.name", ...),
    ("rules.0.timeouts.connect", "1s"),
    ("rules.0.matches.0.method", "get"),
    ("rules.0.matches.0.model", "iris"),
    (f"{HEADER}.name", "hOst"),
    (f"{HEADER}.name", "X-Envoy-Anything"),
    (f"{HEADER}.name", "a_b"),
    (f"{HEADER}.name", ""),
    (f"{HEADER}.value", ...),
    (f"{HEADER}.value", "a\nb"),
    (f"{HEADER}.value", "x" * 4097),
    (f"{HEADER}.type", "Present"),
    (f"{HEADER}.type", "Suffix"),
    (f"{COOKIE}.value", "a" * 1025),
    (f"{COOKIE}.name", "a b"),
    (f"{QUERY}.value", ""),
    (f"{QUERY}.name", "a\0"),
    (f"{PATH}.value", "v1"),
    (f"{PATH}.value", "/a b"),
    (f"{PATH}.value", "/a?b"),
    (f"{PATH}.value", "/a//b"),
    (f"{PATH}.value", "/modèle"),
    (f"{PATH}.value", "/%2e%2E/a"),
    (f"{PATH}.value", "/a\\b"),
    ("rules.0.matches.0.queryParams.0.name", "a b"),
    ("rules.0.matches.0.queryParams.0.value", "x y"),
    (f"{PATH}.value", "/" * 1025),
    (f"{PATH}.type", "Glob"),
    ("router.modelRef", "a b"),
    ("router.modelRef", ""),
    ("router.modelRef", "a" * 254),
    ("router.protocol", "grpc"),
    ("router.maxConcurrency", 0),
    ("router.maxConcurrency", 1_000_001),
    ("router.overflow", "drop"),
    ("router.kvEndpoints", ["a,b"]),
    ("router.kvEndpoints", ["a"] * 65),
    ("router.queue", 5),
    ("rules.0.router", {}),
    ("mirror", [{"backend": "v2", "percent": 5}]),
    ("rules.0.retries", {"attempts": 2}),
    ("spilt", []),
]
REFUSED_OF_GATEWAYS = [
    ("mode", "Shared"),
    ("hosts", ["a.b", "a.b"]),
    ("hosts", ["a..b"]),
    ("hosts", ["*"]),
    ("hosts", ["a.*.b"]),
    ("hosts", ["10.0.0.1"]),
    ("hosts", ["a.b:80"]),
    ("hosts", ["a" * 64]),
    ("hosts", [".".join(["a"] * 128)]),
    ("hosts", [f"h{number}" for number in range(65)]),
    ("address", "localhost"),
    ("address", "fe80::1%eth0"),
    ("port", 0),
    ("replicas", 0),
    ("replicas", 101),
    ("resources", []),
    ("resources.claims", []),
    ("resources.requests.gpu", 1),
    ("resources.limits.cpu", "1e3"),
    ("resources.limits.cpu", "0.5m"),
    ("resources.limits.cpu", -1),
    ("resources.limits.cpu", 0.5),
    ("resources.limits.memory", "1.5Gi"),
    ("resources.limits.memory", "100m"),
    ("resources.limits.memory", True),
    ("default", True),
]


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_what_is_wrong_in_a_policy_is_refused_by_both(path, value):
    document = changed(WHOLE, path, value)
    assert problems(document)
    assert crds.refusals(document)


@pytest.mark.parametrize(("path", "value"), REFUSED_OF_GATEWAYS)
def test_what_is_wrong_in_a_gateway_is_refused_by_both(path, value):
    document = changed(GATEWAY, path, value)
    assert problems(document)
    assert crds.refusals(document)


@pytest.mark.parametrize(
    "document",
    [
        changed(WHOLE, COOKIE, {"name": "a", "type": "RegularExpression", "value": "["}),
        changed(WHOLE, COOKIE, {"name": "a", "type": "RegularExpression", "value": "a;b"}),
        changed(WHOLE, PATH, {"type": "RegularExpression", "value": "(a)\\1"}),
        changed(WHOLE, "rules.0.matches", [{"headers": [{"name": "a", "value": "x" * 4096}] * 16}] * 3),
        changed(
            changed(WHOLE, "split", [{"backend": f"b{n}"} for n in range(64)]),
            "rules",
            [{"name": f"r{n}", "matches": [{"path": {"value": f"/{m}"}} for m in range(64)]} for n in range(5)],
        ),
        changed(GATEWAY, "hosts", ["a.b", "A.b"]),
        changed(GATEWAY, "resources.requests.memory", "1025Mi"),
    ],
    ids=[
        "expression",
        "semicolon",
        "back reference",
        "endless",
        "shares",
        "host twice, in another case",
        "more than the limit",
    ],
)
def test_what_no_schema_can_say_is_said_by_xdserve(document):
    assert crds.refusals(document) == []
    assert all(BEYOND_A_SCHEMA.search(each.allowed) for each in problems(document))


def test_messages_say_what_to_do():
    both = changed(changed(WHOLE, "backends.0.ref.port", 80), f"{HEADER}.value", ...)
    assert crds.refusals(both) == [
        ".spec.backends[0].ref.port: port is for kind Service, which needs it",
        ".spec.rules[0].matches[0].headers[0].value: a value, but none beside type Present",
    ]


TEXTS = [
    "", "a", "iris", "v2", "A", "x-tester", "Host", "x-envoy-a", "a_b", "a b", "a\n", "é", "a.b", "*.A.b", "1.2.3.4",
    "1.2.3.400", "01.2.3.4", "::1", "0s", "5m", "1h30m", "0h0ms", "100000s", "1s1s1s1s1s", "/", "/a", "/a?b", "/a b",
    "/a//b", "/a/./b", "/a%2fb", "a&b",
    "/é", "[", "a|b", ".*", "a" * 63, "a" * 64, "a" * 256, "a" * 257, "/" * 1025, "x" * 4097, "serving.kserve.io",
]  # fmt: skip
NUMBERS = [-1, 0, 1, 7, 8, 80, 65535, 65536, 1_000_000, 1_000_001, 0.5]


def places(schema, value, path=""):
    """(path, its schema) of all that an object has."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        below = schema["items"] if isinstance(value, list) else schema["properties"][key]
        here = f"{path}.{key}" if path else str(key)
        yield here, below
        yield from places(below, each, here)


def values(schema):
    """What may be put there, right or wrong."""
    if "x-kubernetes-int-or-string" in schema:
        return st.sampled_from([*NUMBERS, *TEXTS, "1", "500m", "1.5", "64Mi", "4Gi", None, True, ...])
    match schema["type"]:
        case "integer":
            return st.sampled_from([*NUMBERS, None, "1", True, ...])
        case "string":
            return st.sampled_from([*schema.get("enum", ()), *TEXTS, None, 1, ...])
    return st.sampled_from([None, {}, [], [None], "a", {"nonsense": 1}, ...])


def edits(document):
    """Some changes of an object: (path, value)."""
    spec = crds.schema(document["kind"])["properties"]["spec"]
    each = [
        values(schema).map(lambda value, path=path: (path, value)) for path, schema in places(spec, document["spec"])
    ]
    return st.lists(st.one_of(each), min_size=1, max_size=3)


@pytest.mark.parametrize("document", [WHOLE, GATEWAY], ids=KINDS)
def test_both_say_the_same_of_any_object(document):
    @settings(max_examples=1000, deadline=None)
    @given(edits(document))
    def try_it(changes):
        edited = document
        for path, value in changes:
            with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change took its place away
                edited = changed(edited, path, value)
        agree(edited)

    try_it()


@pytest.mark.parametrize("kind", KINDS)
def test_a_definition_has_what_users_see_of_it(kind):
    definition = crds.definitions()[kind]
    [version] = definition["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert [c["name"] for c in version["additionalPrinterColumns"]] == [
        "Target", "Kind", "Accepted", "Programmed", "Reason", "Age",
    ]  # fmt: skip
    assert definition["spec"]["names"]["shortNames"] == [{"TrafficPolicy": "tp", "ServiceGateway": "sgw"}[kind]]
    # Else an uninstall would delete the definition, and with it every object of its kind.
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_status_of_a_policy_is_that_of_gateway_api():
    condition = {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    ancestor = {
        "ancestorRef": {"group": "serving.kserve.io", "kind": "InferenceService", "name": "iris"},
        "controllerName": "xdserve.io/controller",
        "conditions": [condition, {**condition, "type": "xdserve.io/GatewayProgrammed"}],
    }
    assert crds.refusals({**WHOLE, "status": {"ancestors": [ancestor]}}) == []
    assert crds.refusals({**WHOLE, "status": {"ancestors": [ancestor] * 17}})
    assert crds.refusals({**WHOLE, "status": {"ancestors": [{**ancestor, "conditions": [condition] * 2}]}})


def walked(schema, path=""):
    yield path, schema
    for key, inner in schema.get("properties", {}).items():
        yield from walked(inner, f"{path}.{key}")
    if "items" in schema:
        yield from walked(schema["items"], f"{path}[]")


@pytest.mark.parametrize("kind", KINDS)
def test_no_item_of_a_list_has_a_default(kind):
    """The apiserver would write it into the object, and who compares lists as a whole would find a difference."""
    assert [path for path, schema in walked(crds.schema(kind)) if "[]" in path and "default" in schema] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_structural_and_bounded(kind):
    """Without bounds the apiserver cannot tell what its rules cost, and refuses the whole definition."""
    for path, schema in walked(crds.schema(kind)["properties"]["spec"]):
        if schema.get("x-kubernetes-int-or-string"):  # the one kind of value that has no type, but these very two
            assert ("type" in schema, schema["anyOf"]) == (False, [{"type": "integer"}, {"type": "string"}]), path
            continue
        assert schema["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert not {"$ref", "const", "title", "oneOf", "additionalProperties", "nullable"} & schema.keys(), path
        assert schema["type"] != "array" or "maxItems" in schema, path
        assert schema.get("description") or path.endswith("[]"), path
        for rule in schema.get("x-kubernetes-validations", ()):
            crds.compiled_rule(rule["rule"])
            assert "\n" not in rule["message"]
