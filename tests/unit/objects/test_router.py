"""A policy's router: what a user writes, and the line that a mistake gives."""

from __future__ import annotations

import pytest

from tests.unit.objects.mistakes import POLICY, changed, problems
from translator.objects import parse


def test_a_router_is_read_whole():
    said = {"modelRef": "org/iris-7b", "kvEndpoints": ["kv-1:6379"], "maxConcurrency": 4, "overflow": "reject"}
    found = parse(changed(POLICY, "spec.router", {**said, "protocol": "openai"})).spec.router
    assert (found.model_ref, found.kv_endpoints, found.max_concurrency) == ("org/iris-7b", ("kv-1:6379",), 4)
    assert (found.overflow, found.protocol) == ("reject", "openai")
    found = parse(changed(POLICY, "spec.router", {})).spec.router
    assert (found.model_ref, found.kv_endpoints, found.max_concurrency) == (None, (), 10)
    assert (found.overflow, found.protocol) == ("queue", "v1")


PLAIN = "1 to 253 printable characters of ASCII without blanks"


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        *(("modelRef", value, f"allowed {PLAIN}") for value in ("", "a b", "a\n", "ü", "a" * 254, 5, ["a"])),
        *(("maxConcurrency", value, "allowed 1..1000000") for value in (0, -1, 1_000_001, "10", 1.5, True, 10**40)),
        *(("overflow", value, "allowed queue or reject") for value in ("Queue", "drop", "", 1)),
        *(("protocol", value, "allowed v1, v2 or openai") for value in ("V1", "grpc", 1)),
        ("kvEndpoints", "kv-1:6379", "allowed a list"),
        ("kvEndpoints", ["kv-1"] * 65, "allowed at most 64 entries"),
        ("queue", 5, "allowed modelRef, protocol, maxConcurrency, overflow, kvEndpoints"),
    ],
)
def test_a_mistake_in_a_router_is_one_line(field: str, value: object, line: str):
    [found] = problems(changed(POLICY, "spec.router", {field: value}))
    assert found.startswith(f"spec.router.{field}: found ")
    assert found.endswith(line)


@pytest.mark.parametrize("value", ["a,b", "", "a b", "a\n", 1])
def test_an_endpoint_of_a_cache_has_no_comma(value: object):
    [found] = problems(changed(POLICY, "spec.router", {"kvEndpoints": ["kv-1", value]}))
    assert found.startswith("spec.router.kvEndpoints[1]: found ")
    assert found.endswith(f"allowed {PLAIN} and commas")


def test_a_rule_has_no_router_of_its_own():
    """There is one in a pod."""
    [line] = problems(changed(POLICY, "spec.rules.0.router", {}))
    assert line == "spec.rules[0].router: found this field, not yet supported"
