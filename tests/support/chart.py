"""The Helm chart: `rendered(values)` gives the objects that Helm would apply.

Helm runs in a child process: its library starts the threads of a Go runtime, and who has threads can make no network
namespace of their own (`tests.support.netns`). The child is started from where the caller is, so it sees their network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/xdserve"
NAME, NAMESPACE = "xdserve", "xdserve-system"
VALUE_FILES = {path.name.removesuffix("-values.yaml"): path for path in sorted(CHART.glob("ci/*.yaml"))}
# What others are in, are bound to or are of comes before them.
_FIRST = ("CustomResourceDefinition", "ServiceAccount", "Secret", "ConfigMap", "ClusterRole", "Role")
_SECONDS = 120


class HelmRefused(Exception):
    """Helm did not do it; the text is what it said."""


def values_of(name):
    """The values of a file in ci/, by its first word."""
    return yaml.safe_load(VALUE_FILES[name].read_text())


def templates(values=None, *, name=NAME, namespace=NAMESPACE, chart=CHART):
    """template -> its text as Helm renders it."""
    return _render(str(chart), json.dumps(values or {}), name, namespace)


def rendered(values=None, *, name=NAME, namespace=NAMESPACE, chart=CHART, hooks=False):
    """The objects of a release in an order in which they can be applied; with ``hooks`` also those of `helm test`."""
    texts = templates(values, name=name, namespace=namespace, chart=chart)
    found = [
        each for path, text in texts.items() if path.endswith(".yaml") for each in yaml.safe_load_all(text) if each
    ]
    chosen = [each for each in found if hooks or "helm.sh/hook" not in each["metadata"].get("annotations", {})]
    return sorted(chosen, key=lambda each: _FIRST.index(each["kind"]) if each["kind"] in _FIRST else len(_FIRST))


def findings(values=None, *, chart=CHART):
    """What `helm lint --strict` has against the chart with these values."""
    report = _helm("lint", chart=str(chart), values=values or {}, namespace=NAMESPACE)
    return report["errors"] + [each["error"] for each in report["messages"] if each["severity"] > 1]


def install(kubeconfig, values=None, *, name=NAME, namespace=NAMESPACE, chart=CHART):
    """Install or upgrade a release as `helm upgrade --install` does; gives its summary."""
    common = {"kubeconfig": str(kubeconfig), "name": name, "namespace": namespace}
    return _helm("install", chart=str(chart), values=values or {}, **common)


def uninstall(kubeconfig, *, name=NAME, namespace=NAMESPACE):
    """Uninstall a release."""
    return _helm("uninstall", kubeconfig=str(kubeconfig), name=name, namespace=namespace)


def rules(document, text):
    """(rule, its reason) of a role; the reason is the comment before it in the text of its template."""
    reasons = re.findall(r"((?:^ *# .*\n)+)^ *- apiGroups:", text, re.MULTILINE)
    said = [" ".join(line.strip(" #") for line in reason.splitlines()) for reason in reasons]
    return list(zip(document["rules"], said, strict=True))


def roles(values=None):
    """kind and name -> [(rule, reason)] of all roles of a release."""
    texts = [text for path, text in templates(values).items() if "/rbac" in path]
    documents = [part for text in texts for part in text.split("\n---\n")]
    read = [(yaml.safe_load(part), part) for part in documents if part.strip()]
    of_roles = [(each, part) for each, part in read if each["kind"] in {"ClusterRole", "Role"}]
    return {f"{each['kind']} {each['metadata']['name']}": rules(each, part) for each, part in of_roles}


@cache
def _render(chart, values, name, namespace):
    return _helm("render", chart=chart, values=json.loads(values), name=name, namespace=namespace)


def _helm(action, **arguments):
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.chart"],
        check=False,
        input=json.dumps({"action": action, **arguments}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise HelmRefused(done.stderr.strip())
    return json.loads(done.stdout)


def _act(action, arguments):
    import helm_python as helm  # noqa: PLC0415 - in the child alone

    kubeconfig = arguments.pop("kubeconfig", None)
    name, values = arguments.get("name"), arguments.get("values")
    try:
        if action == "lint":
            return helm.lint(arguments["chart"], values, strict=True, namespace=arguments["namespace"])
        if action == "render":
            with helm.Chart.load(arguments["chart"]) as chart:
                return chart.render(values, name=name, namespace=arguments["namespace"])
        with helm.Config(kubeconfig_path=kubeconfig, namespace=arguments["namespace"]) as config:
            if action == "uninstall":
                return config.uninstall(name)
            there = any(release["name"] == name for release in config.list())
            return (config.upgrade if there else config.install)(arguments["chart"], name, values)
    except helm.HelmError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump(_act(given.pop("action"), given), sys.stdout)
