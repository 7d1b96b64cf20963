"""TrafficPolicy and ServiceGateway: what a user writes, and the line that a mistake gives."""

from __future__ import annotations

import pytest

from tests.unit.objects.mistakes import ABSENT, GATEWAY, POLICY, changed, problems
from translator.objects import ObjectInvalid, ServiceGateway, TrafficPolicy, parse
from translator.objects.ref import Ref


def test_a_policy_is_read_whole():
    policy = parse(POLICY)
    assert isinstance(policy, TrafficPolicy)
    assert str(policy.ref) == "TrafficPolicy models/iris"
    spec = policy.spec
    assert spec.target_ref.ref("models") == Ref("serving.kserve.io", "InferenceService", "models", "iris")
    stable, v2 = spec.backends
    assert stable.ref.ref("models").namespace == "models"
    assert (stable.ref.section_name, stable.protocol, stable.when_unready) == ("predictor", None, "Redistribute")
    assert v2.ref.ref("models") == Ref("", "Service", "other", "iris-v2-predictor")
    assert (v2.ref.port, v2.protocol, v2.when_unready) == (80, "H2C", "Fail")
    assert [(share.backend, share.weight, share.priority) for share in spec.split] == [("stable", 90, 0), ("v2", 10, 1)]
    assert (spec.sticky.by, spec.sticky.name, spec.sticky.ttl) == ("Cookie", "xd", 5_400_000)
    assert (spec.timeouts.request, spec.timeouts.idle, spec.timeouts.connect) == (0, 300_000, 2000)


def test_a_rule_is_read_whole():
    testers, rest = parse(POLICY).spec.rules
    [match] = testers.matches
    assert [(each.name, each.type, each.value) for each in match.headers] == [
        ("x-tester", "Exact", "true"),
        ("x-a", "Present", None),
        ("x-b", "Prefix", "b"),
    ]
    assert (match.path.type, match.path.value, match.method) == ("PathPrefix", "/v1/models", "POST")
    assert testers.split[0].weight == 1
    assert (testers.sticky.by, testers.sticky.name) == ("Header", "x-user-id")
    assert (testers.timeouts.request, testers.timeouts.idle) == (1500, 0)
    assert (rest.matches, rest.split, rest.sticky, rest.timeouts.request) == ((), (), None, None)


def test_a_policy_says_little_when_it_has_little_to_say():
    spec = parse(changed(POLICY, "spec", {"targetRef": {"kind": "Service", "name": "x"}})).spec
    assert (spec.backends, spec.split, spec.rules, spec.sticky, spec.timeouts.connect) == ((), (), (), None, None)
    assert spec.target_ref.group == ""


def test_null_is_absent():
    spec = parse(changed(POLICY, "spec.split.0.weight", None)).spec
    assert spec.split[0].weight == 1
    assert parse(changed(POLICY, "spec.mirror", None)).spec.split
    assert parse(changed(POLICY, "spec.backends", None)).spec.backends == ()


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("spec.split.0.weight", -1, "spec.split[0].weight: found -1, allowed 0..1000000"),
        ("spec.split.0.weight", 1_000_001, "spec.split[0].weight: found 1000001, allowed 0..1000000"),
        ("spec.split.0.weight", "90", 'spec.split[0].weight: found "90", allowed 0..1000000'),
        ("spec.split.0.weight", 0.5, "spec.split[0].weight: found 0.5, allowed 0..1000000"),
        ("spec.split.0.weight", True, "spec.split[0].weight: found true, allowed 0..1000000"),
        ("spec.split.0.weight", 10**40, "spec.split[0].weight: found a number of 133 bits, allowed 0..1000000"),
        ("spec.split.0.priority", 8, "spec.split[0].priority: found 8, allowed 0..7"),
        ("spec.split.0.backend", ABSENT, "spec.split[0].backend: found nothing, allowed a value"),
        ("spec.split.1.backend", "stable", 'spec.split[1].backend: found "stable", allowed each backend once'),
        ("spec.split.0", "stable", 'spec.split[0]: found "stable", allowed a map'),
        ("spec.split", {}, "spec.split: found a map of 0, allowed a list"),
        ("spec.split", "stable", 'spec.split: found "stable", allowed a list'),
        ("spec.backends.1.name", "stable", 'spec.backends[1].name: found "stable", allowed each name once'),
        (
            "spec.backends.1.name",
            "V_2",
            'spec.backends[1].name: found "V_2", allowed a DNS label: a-z, 0-9 and -, at most 63 characters',
        ),
        ("spec.backends.1.ref.kind", "Pod", None),
        ("spec.backends.1.ref.port", ABSENT, "spec.backends[1].ref.port: found nothing, allowed a value"),
        ("spec.backends.1.ref.port", 0, "spec.backends[1].ref.port: found 0, allowed 1..65535"),
        ("spec.backends.1.ref.sectionName", "x", None),
        (
            "spec.backends.0.ref.port",
            80,
            "spec.backends[0].ref.port: found 80, allowed no port: it is for kind Service alone",
        ),
        (
            "spec.backends.0.ref.group",
            "x",
            'spec.backends[0].ref.group: found "x", allowed "serving.kserve.io" for kind InferenceService',
        ),
        (
            "spec.backends.0.protocol",
            "TCP",
            'spec.backends[0].protocol: found "TCP", allowed HTTP, H2C, HTTPS or HTTP2',
        ),
        ("spec.backends.1.tls", {}, 'spec.backends[1].protocol: found "H2C", allowed HTTPS or HTTP2 beside tls'),
        ("spec.backends.0.tls", True, "spec.backends[0].tls: found true, allowed a map"),
        ("spec.backends.0.tls", {"hostname": "10.0.0.1:8443"}, None),
        ("spec.backends.0.tls", {"hostname": "*.example.org"}, None),
        (
            "spec.backends.0.tls",
            {"insecureSkipVerify": True, "caRef": {"name": "ca"}},
            "spec.backends[0].tls.caRef: found a caRef, allowed none beside insecureSkipVerify: true",
        ),
        ("spec.backends.0.tls", {"caRef": {}}, "spec.backends[0].tls.caRef.name: found nothing, allowed a value"),
        (
            "spec.backends.0.tls",
            {"caRef": {"kind": "Secret", "name": "ca"}},
            'spec.backends[0].tls.caRef.kind: found "Secret", allowed ConfigMap',
        ),
        ("spec.backends.0.tls", {"caRef": {"name": "ca", "key": "../ca"}}, None),
        ("spec.backends.0.tls", {"caRef": {"name": "ca", "namespace": "x"}}, None),
        ("spec.sticky", {"by": "SourceIP"}, 'spec.sticky.by: found "SourceIP", not yet supported'),
        ("spec.sticky", {"by": "Body"}, 'spec.sticky.by: found "Body", allowed Cookie, Header'),
        ("spec.sticky", {"by": ["Cookie"]}, "spec.sticky.by: found a list of 1, allowed Cookie, Header"),
        ("spec.sticky", {"name": "x"}, "spec.sticky.by: found nothing, allowed a value"),
        ("spec.sticky", {"by": "Header"}, "spec.sticky.name: found nothing, allowed a value"),
        (
            "spec.sticky",
            {"by": "Header", "name": "x", "ttl": "1h"},
            "spec.sticky.ttl: found an unknown field, allowed by, name",
        ),
        ("spec.sticky.ttl", "0s", 'spec.sticky.ttl: found "0s", allowed a duration above 0s'),
        ("spec.sticky.name", "a b", 'spec.sticky.name: found "a b", allowed a cookie\'s name (RFC 6265)'),
        ("spec.sticky", [], "spec.sticky: found a list of 0, allowed a map"),
        ("spec.rules.0.name", ABSENT, "spec.rules[0].name: found nothing, allowed a value"),
        ("spec.rules.1.name", "testers", 'spec.rules[1].name: found "testers", allowed each name once'),
        ("spec.rules.0.timeouts.connect", "1s", None),
        (
            "spec.timeouts.idle",
            "5 m",
            'spec.timeouts.idle: found "5 m", allowed a duration such as 300ms, 5m or 0s',
        ),
        ("spec.timeouts.idle", 0, "spec.timeouts.idle: found 0, allowed a duration such as 300ms, 5m or 0s"),
        ("spec.timeouts.idle", "1s\n", None),
        ("spec.timeouts.idle", "1.5s", None),
        ("spec.timeouts.idle", "-1s", None),
        ("spec.timeouts.idle", "123456s", None),
        ("spec.timeouts.idle", "1s1s1s1s1s", None),
        ("spec.timeouts.idle", "१s", None),
        ("spec.timeouts.connect", "0s", 'spec.timeouts.connect: found "0s", allowed a duration above 0s'),
        ("spec.targetRef.namespace", "x", None),
        ("spec.targetRef", ABSENT, "spec.targetRef: found nothing, allowed a value"),
        ("spec.targetRef.kind", "HTTPRoute", None),
        ("spec", None, "spec: found nothing, allowed a value"),
        ("spec", [], "spec: found a list of 0, allowed a map"),
        ("specs", {}, "specs: found an unknown field, allowed metadata, spec"),
        (
            "spec.mirorr",
            [],
            "spec.mirorr: found an unknown field, allowed "
            + ", ".join(("targetRef", "backends", "split", "sticky", "rules", "timeouts", "buffer", "router")),
        ),
        ("spec.a b\nc", 1, None),
        ("metadata", "x", 'metadata: found "x", allowed a map'),
        ("metadata.name", "Iris", None),
        ("metadata.name", ABSENT, "metadata.name: found nothing, allowed a value"),
        ("metadata.namespace", "a.b", None),
        ("metadata.labels", {"a.b/c": 1}, "metadata.labels[a.b/c]: found 1, allowed a string"),
        ("apiVersion", "xdserve.io/v1", 'apiVersion: found "xdserve.io/v1", allowed xdserve.io/v1alpha1'),
        ("kind", "AccessPolicy", 'kind: found "AccessPolicy", not yet supported'),
        ("kind", "TraficPolicy", 'kind: found "TraficPolicy", allowed TrafficPolicy, ServiceGateway'),
        ("kind", ["TrafficPolicy"], "kind: found a list of 1, allowed a string"),
    ],
)
def test_a_mistake_is_one_line(path: str, value: object, line: str | None):
    lines = problems(changed(POLICY, path, value))
    assert len(lines) == 1
    assert line in {None, lines[0]}


MATCH = "spec.rules.0.matches.0"
IN_MATCH = "spec.rules[0].matches[0]"
HIDDEN_EXPRESSION = (
    "found an expression that RE2 does not take (not shown: it may hold a secret), allowed a regular expression of RE2"
)


@pytest.mark.parametrize(
    ("part", "value", "line"),
    [
        ("model", "iris", "model: found this field, not yet supported"),
        ("method", "get", None),
        ("method", "TRACE", 'method: found "TRACE", allowed GET, HEAD, POST, PUT, DELETE, OPTIONS or PATCH'),
        ("method", "CONNECT", None),
        ("path", {"value": "v1"}, 'path.value: found "v1", allowed a path that starts with /, at most 1024 characters'),
        ("path", {"value": "/a?b"}, None),
        ("path", {"value": "/a b"}, None),
        ("path", {"type": "Glob", "value": "/"}, None),
        (
            "path",
            {"value": "/a//b"},
            'path.value: found "/a//b", allowed a path as gateways normalise it: none has "//"',
        ),
        *(
            ("path", {"type": kind, "value": value}, None)
            for kind in ("Exact", "PathPrefix")
            for value in ("//", "/./a", "/a/..", "/%2e%2E/a", "/a\\b", "/a%2fb", "/a%5Cb", "/modèle")
        ),
        ("path", {}, "path.value: found nothing, allowed a value"),
        (
            "path",
            {"type": "RegularExpression", "value": "/a(b"},
            'path.value: found "/a(b", allowed a regular expression of RE2 (missing ): /a(b)',
        ),
        ("path", {"type": "RegularExpression", "value": "(?=a)"}, None),  # Python's re takes it
        ("path", {"type": "RegularExpression", "value": "(a)\\1"}, None),
        ("path", {"type": "RegularExpression", "value": "a" * 1025}, None),
        ("path", {"type": "RegularExpression", "value": "((a{100}){10}){10}"}, None),
        ("path", {"type": "RegularExpression", "value": "(\n"}, None),
        ("headers", [{"name": ":path", "value": "x"}], None),
        ("headers", [{"name": "hOst", "value": "x"}], None),
        ("headers", [{"name": "ü", "value": "x"}], None),
        ("headers", [{"name": "", "value": "x"}], None),
        ("headers", [{"name": "a"}], "headers[0].value: found nothing, allowed a value"),
        ("headers", [{"name": "a", "value": True}], "headers[0].value: found true, allowed a string"),
        ("headers", [{"name": "a", "value": "x", "type": "Present"}], None),
        ("headers", [{"name": "a", "value": "", "type": "Prefix"}], None),
        (
            "headers",
            [{"name": "a", "value": "[", "type": "RegularExpression"}],
            f"headers[0].value: {HIDDEN_EXPRESSION}",
        ),
        ("headers", [{"name": "a", "value": "\ud800"}], None),
        ("headers", [{"name": "a", "value": "x"}] * 17, "headers: found a list of 17, allowed at most 16 entries"),
        ("headers", {"name": "a"}, "headers: found a map of 1, allowed a list"),
        ("cookies", [{"name": "a=b", "value": "x"}], None),
        ("cookies", [{"name": "a", "value": "x\r\ny"}], None),
        ("queryParams", [{"name": "a\0", "value": "x"}], None),
        ("queryParams", [{"name": "a b", "value": "x"}], None),
        ("queryParams", [{"name": "a=b", "type": "Present"}], None),
        (
            "queryParams",
            [{"name": "a", "value": "x y"}],
            "queryParams[0].value: found a string, allowed what stands so in a URL: no &, #, and for a blank %20 or +",
        ),
        ("queryParams", [{"name": "a", "type": "Prefix", "value": "x&"}], None),
    ],
)
def test_a_match_that_cannot_be_is_refused(part: str, value: object, line: str | None):
    [found] = problems(changed(POLICY, f"{MATCH}.{part}", value))
    assert found.startswith(f"{IN_MATCH}.{part}")
    assert line is None or found == f"{IN_MATCH}.{line}"


def test_values_that_requests_are_compared_with_are_never_shown():
    for kind in ("headers", "cookies", "queryParams"):
        for match in (
            {"value": "hunter2\n"},
            {"value": "hunter2", "type": "Present"},
            {"value": "hunter2" * 1000},
            {"value": "x", "password": "hunter2"},
        ):
            [line] = problems(changed(POLICY, f"{MATCH}.{kind}", [{"name": "authorization", **match}]))
            assert "hunter2" not in line


@pytest.mark.parametrize("place", ["spec", "spec.rules.0"])
@pytest.mark.parametrize(
    "name",
    [
        "mirror", "retries", "concurrency", "rateLimits", "outlierDetection", "healthCheck", "loadBalancing", "faults",
        "rewrite", "redirect", "requestHeaders", "responseHeaders",
    ],
)  # fmt: skip
def test_what_is_documented_and_not_built_is_refused_as_such(place: str, name: str):
    [line] = problems(changed(POLICY, f"{place}.{name}", {"anything": "secret"}))
    assert line == f"{place.replace('.0', '[0]')}.{name}: found this field, not yet supported"


def test_a_host_name_as_backend_is_not_built():
    reference = {"kind": "Hostname", "hostname": "models.example.org", "port": 443}
    first, *_ = problems(changed(POLICY, "spec.backends.1.ref", reference))
    assert first == 'spec.backends[1].ref.kind: found "Hostname", not yet supported'


def test_all_problems_are_told_at_once():
    document = changed(changed(POLICY, "spec.split.0.weight", -1), "spec.backends.0.protocol", "x")
    document = changed(changed(document, "spec.mirror", []), "metadata.name", "?")
    assert [line.split(":")[0] for line in problems(document)] == [
        "metadata.name",
        "spec.backends[0].protocol",
        "spec.split[0].weight",
        "spec.mirror",
    ]
    with pytest.raises(ObjectInvalid, match=r"allowed a name.*\(and 3 more\)$"):
        parse(document)


def test_a_gateway_is_read_whole():
    gateway = parse(GATEWAY)
    assert isinstance(gateway, ServiceGateway)
    spec = gateway.spec
    assert (spec.hosts, spec.address, spec.port) == (("models.example.org", "*.example.org"), "127.0.0.1", 8081)
    spec = parse(changed(GATEWAY, "spec", {"targetRef": {"kind": "Service", "name": "x"}})).spec
    assert (spec.hosts, spec.address, spec.port, spec.mode) == ((), None, 8080, "Dedicated")


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("targetRef", ABSENT, "targetRef: found nothing, allowed a value"),
        ("default", True, "default: found this field, not yet supported"),
        ("mode", "Shared", 'mode: found "Shared", not yet supported'),
        ("mode", "Sidecar", 'mode: found "Sidecar", not yet supported'),
        ("mode", "Other", 'mode: found "Other", allowed Dedicated'),
        ("replicas", 0, "replicas: found 0, allowed 1..100"),
        ("replicas", 101, "replicas: found 101, allowed 1..100"),
        ("replicas", "2", 'replicas: found "2", allowed 1..100'),
        ("tls", {}, "tls: found this field, not yet supported"),
        ("trustedHops", 1, "trustedHops: found this field, not yet supported"),
        ("resources", [], "resources: found a list of 0, allowed a map"),
        ("resources", {"claims": []}, "resources.claims: found an unknown field, allowed requests, limits"),
        (
            "resources",
            {"requests": {"gpu": 1}},
            "resources.requests.gpu: found an unknown field, allowed cpu, memory",
        ),
        (
            "resources",
            {"requests": {"memory": "2Gi"}, "limits": {"memory": "2000Mi"}},
            'resources.requests.memory: found "2Gi", allowed at most the limit, 2000Mi',
        ),
        (
            "resources",
            {"requests": {"cpu": 1}, "limits": {"cpu": "999m"}},
            'resources.requests.cpu: found "1", allowed at most the limit, 999m',
        ),
        ("accessLog", {}, "accessLog: found this field, not yet supported"),
        ("tracing", {}, "tracing: found this field, not yet supported"),
        ("hosts", ["a.b", "A.b"], 'hosts[1]: found "a.b", allowed each host once'),
        ("hosts", ["a..b"], 'hosts[0]: found "a..b", allowed a DNS name, or *. and one'),
        ("hosts", ["*"], None),
        ("hosts", ["a.*.b"], None),
        ("hosts", ["10.0.0.1"], None),
        ("hosts", ["a.b:80"], None),
        ("hosts", ["a" * 64], None),
        ("hosts", [".".join(["a"] * 128)], None),
        ("hosts", [5], None),
        ("hosts", "a.b", 'hosts: found "a.b", allowed a list'),
        ("address", "localhost", 'address: found "localhost", allowed an IP address'),
        ("address", "fe80::1%eth0", None),
        ("port", 0, "port: found 0, allowed 1..65535"),
        ("port", 65536, "port: found 65536, allowed 1..65535"),
    ],
)
def test_a_mistake_in_a_gateway_is_one_line(path: str, value: object, line: str | None):
    [found] = problems(changed(GATEWAY, f"spec.{path}", value))
    assert line is None or found == f"spec.{line}"


CPU = "an amount of processors such as 2, 0.5 or 500m"
MEMORY = "an amount of memory such as 256Mi or 1Gi"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("cpu", value, CPU) for value in ("", "fast", "-1", "1e3", "0.5m", "1Gi", "0.0001", "1.", ".5", "1 ", "1\n")),
        *(("cpu", value, CPU) for value in (True, 0.5, -1, [1], "१", 10**7)),
        *(("memory", value, MEMORY) for value in ("", "1.5Gi", "1gb", "-1Gi", "1e9", "100m", "1Ti ", "1 Gi", "Gi")),
        *(("memory", value, MEMORY) for value in (True, 1.5, -1, {}, "१Gi", 10**40)),
    ],
)
def test_a_quantity_that_cannot_be_is_one_line(name: str, value: object, allowed: str):
    [line] = problems(changed(GATEWAY, "spec.resources", {"limits": {name: value}}))
    assert line.startswith(f"spec.resources.limits.{name}: found ")
    assert line.endswith(f", allowed {allowed}")


@pytest.mark.parametrize(
    ("name", "written", "kept"),
    [
        *(("cpu", *each) for each in ((2, "2"), ("2", "2"), ("0.5", "500m"), ("1000m", "1"), ("1500m", "1500m"))),
        *(("cpu", *each) for each in (("1.500", "1500m"), ("0", "0"), (0, "0"), ("000.001", "1m"), (1000, "1k"))),
        *(("memory", *each) for each in (("1024Mi", "1Gi"), ("1536Mi", "1536Mi"), ("64Mi", "64Mi"), (0, "0"))),
        *(("memory", *each) for each in (("1000k", "1M"), (100_000, "100k"), (1 << 30, "1073741824"))),
        *(("memory", *each) for each in (("2048Gi", "2Ti"), ("0Mi", "0"), ("999999999Gi", "999999999Gi"))),
    ],
)
def test_a_quantity_is_kept_as_the_apiserver_spells_it(name: str, written: object, kept: str):
    """Else what is applied would never equal what is found there."""
    spec = parse(changed(GATEWAY, "spec.resources", {"requests": {name: written}})).spec
    assert getattr(spec.resources.requests, name) == kept


def test_requests_may_be_as_much_as_the_limit():
    spec = parse(
        changed(GATEWAY, "spec.resources", {"requests": {"memory": "1024Mi"}, "limits": {"memory": "1Gi"}})
    ).spec
    assert spec.resources.requests == spec.resources.limits


def test_a_policy_is_not_endless():
    """Its routes are one message, made and sent as a whole at every edit."""
    headers = [{"name": f"h{number}", "type": "RegularExpression", "value": "a" * 1000} for number in range(16)]
    rules = [{"name": f"r{number}", "matches": [{"headers": headers}]} for number in range(10)]
    document = {
        "apiVersion": "xdserve.io/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "iris", "namespace": "models"},
        "spec": {"targetRef": {"kind": "Service", "name": "iris"}, "rules": rules},
    }
    with pytest.raises(ObjectInvalid) as refused:
        parse(document)
    [problem] = refused.value.problems
    assert problem.field == "spec.rules"
    assert "allowed matches of 131072 characters in all" in str(problem)
    document["spec"]["rules"] = rules[:4]
    assert parse(document) is not None


@pytest.mark.parametrize("value", ["[ -~]*admin", r"[\S]+", "a;b"])
def test_an_expression_on_a_cookie_stays_in_its_cookie(value):
    condition = {"name": "beta", "type": "RegularExpression", "value": value}
    document = {
        "apiVersion": "xdserve.io/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "iris"},
        "spec": {
            "targetRef": {"kind": "Service", "name": "iris"},
            "rules": [{"name": "r", "matches": [{"cookies": [condition]}]}],
        },
    }
    with pytest.raises(ObjectInvalid) as refused:
        parse(document)
    [problem] = refused.value.problems
    assert problem.field == "spec.rules[0].matches[0].cookies[0].value"
    assert value not in str(problem)
