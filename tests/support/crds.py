"""The CRDs of the chart, and what an apiserver says to an object by them: schema, keyed lists, rules in CEL."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import re2
import yaml
from cel_expr_python import cel
from jsonschema import Draft202012Validator, FormatChecker, ValidationError, validators

FOLDER = Path(__file__).parents[2] / "helm/xdserve/files/crds"
_CEL = cel.NewEnv(variables={"self": cel.Type.DYN})


@cache
def definitions():
    """kind -> its CustomResourceDefinition."""
    read = [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))]
    return {each["spec"]["names"]["kind"]: each for each in read}


def schema(kind):
    """The schema of a kind's objects."""
    [version] = definitions()[kind]["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def refusals(document):
    """What is wrong with an object, as an apiserver with strict field validation tells it; empty if it is taken."""
    root = schema(document["kind"])
    given = _defaulted(root, document)
    wrong = [f"unknown field {path}" for path in _unknown(root, given, "")]
    wrong += [f"{error.json_path}: {error.message}" for error in _validator(root).iter_errors(given)]
    wrong += [f"{path}: Duplicate value" for path in _twice(root, given, "")]
    # The apiserver runs rules only on what fits the schema.
    return wrong or list(_broken(root, given, ""))


def _pattern(_validator, pattern, value, _schema):
    """Patterns are RE2's there; Python's `$` would let a line break pass."""
    if isinstance(value, str) and not _compiled(pattern).search(value):
        yield ValidationError(f"{value!r} does not match {pattern}")


@cache
def _compiled(pattern):
    return re2.compile(pattern)


_Validator = validators.extend(Draft202012Validator, {"pattern": _pattern})


def _validator(root):
    return _Validator(root, format_checker=FormatChecker(["ipv4", "ipv6"]))


def _defaulted(schema, value):
    """The value without nulls, and with defaults, as the apiserver keeps it."""
    if isinstance(value, list):
        return [_defaulted(schema.get("items", {}), each) for each in value]
    if not isinstance(value, dict):
        return value
    inner = schema.get("properties", {})
    given = {key: _defaulted(inner.get(key, {}), each) for key, each in value.items() if each is not None}
    return {key: each["default"] for key, each in inner.items() if "default" in each} | given


def _below(schema, value, path):
    """(schema, value, path) of what is in a value."""
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        return [(inner[key], each, f"{path}.{key}") for key, each in value.items() if key in inner]
    if isinstance(value, list) and "items" in schema:
        return [(schema["items"], each, f"{path}[{index}]") for index, each in enumerate(value)]
    return []


def _unknown(schema, value, path):
    if isinstance(value, dict) and "properties" in schema:
        yield from (f"{path}.{key}" for key in value if key not in schema["properties"])
    for each in _below(schema, value, path):
        yield from _unknown(*each)


def _twice(schema, value, path):
    kind = schema.get("x-kubernetes-list-type")
    if isinstance(value, list) and kind in {"map", "set"}:
        keys = schema.get("x-kubernetes-list-map-keys", [])
        of = [[each.get(key) for key in keys] if kind == "map" and isinstance(each, dict) else each for each in value]
        yield from (f"{path}[{index}]" for index, each in enumerate(of) if each in of[:index])
    for each in _below(schema, value, path):
        yield from _twice(*each)


def _broken(schema, value, path):
    for rule in schema.get("x-kubernetes-validations", []):
        answer = compiled_rule(rule["rule"]).eval(data={"self": value}).value()
        if answer is not True:
            yield f"{path}{rule.get('fieldPath', '')}: {rule['message']}" + ("" if answer is False else f" ({answer})")
    for each in _below(schema, value, path):
        yield from _broken(*each)


@cache
def compiled_rule(text):
    """A rule, ready to run."""
    return _CEL.compile(text)
