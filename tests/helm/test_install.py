"""The commands and values that docs/install.md names are taken by the charts that they are for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.support import chart

INSTALL = Path(__file__).parents[2] / "docs/install.md"
TEXT = INSTALL.read_text()

KSERVE = {
    "kserve.controller.deploymentMode",
    "kserve.controller.gateway.domain",
    "kserve.controller.gateway.domainTemplate",
    "kserve.controller.gateway.urlScheme",
    "kserve.controller.gateway.disableIstioVirtualHost",
    "kserve.controller.gateway.disableIngressCreation",
}
"""Values of KServe's chart kserve-resources about its ingress."""


def commands():
    """The words of each command of helm in the page, lines that go on joined."""
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ helm "):
                yield shlex.split(line[2:], comments=True)


def values_of(words):
    """What `--set` says, by path."""
    return dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--set")


def nested(path, value):
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


OURS = [words for words in commands() if "helm/xdserve" in words]
NAMED = re.findall(r"`((?:settings|rbac|crds)\.[a-zA-Z_.]+|watchNamespaces|listenAddress): ([^`]+)`", TEXT)


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_the_commands_give_values_that_the_chart_has(words):
    for path, value in values_of(words).items():
        typed = {"true": True, "false": False}.get(value, value)
        assert chart.rendered(nested(path, typed))


@pytest.mark.parametrize(("path", "value"), NAMED, ids=str)
def test_what_the_page_names_are_values_of_the_chart(path, value):
    assert chart.rendered(nested(path, yaml.safe_load(value)))


def test_the_commands_for_kserve_give_values_that_its_chart_has():
    said = [values_of(words) for words in commands() if "kserve" in words]
    assert said
    for values in said:
        assert values.keys() <= KSERVE
        assert {path for path in KSERVE if "disable" in path} <= values.keys(), (
            "else it wants Istio, or makes Ingresses"
        )
