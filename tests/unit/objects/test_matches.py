"""What rules look at in a request: what can match, how much of it there may be, and that nothing of it is printed."""

from __future__ import annotations

import pytest

from tests.unit.objects.mistakes import POLICY, changed, problems
from translator.objects import parse

MATCH = "spec.rules.0.matches.0"


@pytest.mark.parametrize(
    "value", ["/", "/v1/", "/...", "/a/.b", "/mod%C3%A8le", "/a%2D", "/v1/models/a:predict", "/a|b"]
)
def test_a_path_that_requests_can_have_is_taken(value: str):
    assert parse(changed(POLICY, f"{MATCH}.path", {"value": value})).spec.rules[0].matches[0].path.value == value


def test_splits_are_counted_for_every_match_of_their_rule():
    """Each is a route of its own: a small policy could make routes that hold up all gateways."""
    shares = [{"backend": f"b{n}"} for n in range(64)]
    rule = {"name": "a", "matches": [{"path": {"value": f"/{n}"}} for n in range(64)]}
    policy = changed(POLICY, "spec.split", shares)
    rules = [{**rule, "name": f"r{n}"} for n in range(4)]
    assert len(parse(changed(policy, "spec.rules", rules)).spec.rules) == 4
    [line] = problems(changed(policy, "spec.rules", [*rules, {"name": "one-more"}]))
    assert line.startswith("spec.rules: found 16448 shares, allowed splits of 16384 shares in all")


def test_nothing_is_printed_of_an_expression_on_a_cookie(capfd: pytest.CaptureFixture[str]):
    """RE2 writes to stderr, past every log, and what a value is compared with may be a secret."""
    cookie = {"name": "a", "type": "RegularExpression", "value": "[ü-é]hunter2"}
    parse(changed(POLICY, f"{MATCH}.cookies", [cookie]))
    assert capfd.readouterr().err == ""
