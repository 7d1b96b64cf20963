"""Write the CustomResourceDefinitions of xdserve's own kinds, from the models that read them.

What a field is comes from the models: types, enums, bounds, defaults, and the text below each field. Within lists a
default is text alone: the apiserver would write it into the object, and tools that compare whole lists with what was
applied, as Argo CD does, would find a difference for ever. What the models' validators check in Python stands in
`CHECKS` as schema and CEL: a validator that is not in that table is an error, so none can be forgotten. `--check`
writes nothing and fails if a file is not what the models say.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from crd_status import ANCESTORS, CONDITIONS
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema

from translator.objects import ServiceGateway, TrafficPolicy
from translator.objects.fields import (
    DROPPED_HEADERS,
    DROPPED_PREFIXES,
    DURATION,
    DURATION_WORDS,
    POSITIVE_DURATION_WORDS,
)
from translator.objects.policy import _GROUP_OF_KIND as GROUPS

FOLDER = Path(__file__).parent.parent / "helm" / "xdserve" / "files" / "crds"
Kind = type[TrafficPolicy] | type[ServiceGateway]
Schema = dict[str, Any]

GATEWAY_API_POLICY = {"gateway.networking.k8s.io/policy": "Direct"}  # GEP-713: tools find policies by it
NAMES: dict[Kind, tuple[str, str, dict[str, str]]] = {
    TrafficPolicy: ("trafficpolicies", "tp", GATEWAY_API_POLICY),
    ServiceGateway: ("servicegateways", "sgw", {}),
}


def rule(cel: str, message: str, field: str | None = None) -> Schema:
    """One CEL rule of an object; ``field`` is the one that is blamed."""
    return {"rule": cel, "message": message} | ({"fieldPath": f".{field}"} if field else {})


def rules(*each: Schema) -> Schema:
    """What an object's schema has for its rules."""
    return {"x-kubernetes-validations": list(each)}


def given(field: str, default: str) -> str:
    """In CEL, a text field or what it is where it is left out: within lists the apiserver fills in no defaults."""
    return f"(has(self.{field}) ? self.{field} : '{default}')"


KIND, COMPARED = given("kind", "Service"), given("type", "Exact")
DURATION_RULE = rule(f"self.matches('^{DURATION}$')", DURATION_WORDS)
HEADERS_NOT_SEEN = f"^(({'|'.join(('host', *DROPPED_HEADERS))})$|{'|'.join(DROPPED_PREFIXES)})"


def any_case(pattern: str) -> str:
    """The same for letters of both cases; the apiserver's patterns have no flags."""
    return "".join(f"[{each}{each.upper()}]" if each.islower() else each for each in pattern)


def unless_expression(pattern: str, *, never: str | None = None) -> list[Schema]:
    """``value`` fits the pattern and not another, or is a regular expression.

    No CEL: over all conditions it would cost too much.
    """
    expression = {"properties": {"type": {"enum": ["RegularExpression"]}}, "required": ["type"]}
    excluded = {"not": {"pattern": never}} if never else {}
    return [expression, {"properties": {"value": {"pattern": pattern, **excluded}}}]


TEXT = r"^[^\x00-\x1f\x7f]*$"
NORMALISED_AWAY = r"//|/(\.|%2[eE]){1,2}(/|$)|%(2[fF]|5[cC])"
LABEL = r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?"
BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
GROUP_OF_KIND = {
    "properties": {"group": {"enum": sorted(GROUPS.values())}},
    **rules(
        rule(
            f"{given('group', '')} == {{"
            + ", ".join(f"'{kind}': '{group}'" for kind, group in GROUPS.items())
            + f"}}[{given('kind', 'Service')}]",
            "group must be " + ", ".join(f"{group or 'empty'} for kind {kind}" for kind, group in GROUPS.items()),
            "group",
        )
    ),
}

# What each validator checks, as the apiserver can: module and name -> what its schema gets beside what pydantic says.
CHECKS: dict[str, Schema] = {
    "base.OurModel._explain": {},
    "refusal.says.<locals>.check": {},
    "fields._milliseconds": rules(DURATION_RULE),
    "fields._more_than_none": rules(DURATION_RULE, rule("!self.matches('^(0+(h|m|s|ms))+$')", POSITIVE_DURATION_WORDS)),
    "fields._header_name": {
        "minLength": 1,
        "pattern": r"^[!#$%&'*+.^`|~0-9A-Za-z-]+$",
        "not": {"pattern": any_case(HEADERS_NOT_SEEN)},
    },
    "fields._host": {
        "pattern": rf"^(\*\.)?{LABEL}(\.{LABEL})*$",
        "not": {"pattern": rf"^{BYTE}(\.{BYTE}){{3}}$"},
    },
    "fields._literal_address": {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    "fields._text": {"pattern": TEXT},
    "gateway._each_host_once": {"x-kubernetes-list-type": "set"},
    "quantity._cpu": {},
    "quantity._memory": {},
    # Keyed lists: who applies one backend or one weight owns that alone. Rules are in order, so they are one value.
    "policy._each_backend_once": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["backend"]},
    "policy._each_backend_name_once": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    "policy._each_rule_once": {
        "x-kubernetes-list-type": "atomic",
        **rules(rule("self.all(a, self.exists_one(b, b.name == a.name))", "each name once")),
    },
    "policy.TargetRef._group_fits_kind": GROUP_OF_KIND,
    "policy.BackendRef._fits_kind": {
        **GROUP_OF_KIND,
        **rules(
            *GROUP_OF_KIND["x-kubernetes-validations"],
            rule(f"({KIND} == 'Service') == has(self.port)", "port is for kind Service, which needs it", "port"),
            rule(f"{KIND} != 'Service' || !has(self.sectionName)", "a Service has no sections", "sectionName"),
        ),
    },
    "policy.BackendTls._verified_or_not": rules(
        rule(
            "!has(self.caRef) || !has(self.insecureSkipVerify) || !self.insecureSkipVerify",
            "no caRef beside insecureSkipVerify: true",
            "caRef",
        )
    ),
    "policy.Backend._speaks_tls": rules(
        rule(
            "!has(self.tls) || !has(self.protocol) || self.protocol in ['HTTPS', 'HTTP2']",
            "protocol must be HTTPS or HTTP2 beside tls",
            "protocol",
        )
    ),
    "matches.ValueMatch._value_fits_type": {
        "properties": {"value": {"maxLength": 4096}},
        "anyOf": unless_expression(TEXT),
        **rules(
            rule(f"({COMPARED} == 'Present') != has(self.value)", "a value, but none beside type Present", "value"),
            rule(
                f"{COMPARED} != 'Prefix' || !has(self.value) || self.value.size() > 0",
                "a prefix has at least 1 character; type Present takes any value",
                "value",
            ),
            rule(
                f"{COMPARED} != 'RegularExpression' || !has(self.value) || self.value.size() <= 1024",
                "a regular expression has at most 1024 characters",
                "value",
            ),
        ),
    },
    "matches.QueryParamMatch._stands_in_a_url": {
        "properties": {"name": {"pattern": r"^[^\x00-\x20\x7f&#=]*$"}, "value": {"maxLength": 4096}},
        "anyOf": unless_expression(r"^[^\x00-\x20\x7f&#]*$"),
    },
    "matches.PathMatch._value_fits_type": {
        "properties": {"value": {"maxLength": 1024}},
        "anyOf": unless_expression(r"^[^\x00-\x20\x7f-\x{10ffff}?#\\]*$", never=NORMALISED_AWAY),
        **rules(
            rule(
                f"{given('type', 'PathPrefix')} == 'RegularExpression' || self.value.startsWith('/')",
                "a path starts with /",
                "value",
            ),
        ),
    },
    # What follows takes RE2 itself, a sum over lists of lists, or to compare quantities: xdserve says it, in the
    # condition Accepted.
    "gateway.Resources._requests_fit_limits": {},
    "matches.CookieMatch._stays_in_its_cookie": {},
    "policy.TrafficPolicySpec._is_not_endless": {},
}


class Checked(GenerateJsonSchema):
    """JSON schema, and in it what the validators check."""

    def generate_inner(self, schema: CoreSchema) -> JsonSchemaValue:
        """The schema of one value; that of a validated one with its check."""
        made = super().generate_inner(schema)
        if not str(schema["type"]).startswith("function-"):
            return made
        function = schema["function"]["function"]
        if isinstance(function, partial):  # a bound of pydantic's own, which it has said
            return made
        name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        if name not in CHECKS:
            raise SystemExit(f"crds: CHECKS of tools/crds.py does not say what {name} checks")
        return joined(made, CHECKS[name])


def joined(one: Mapping[str, Any], more: Mapping[str, Any]) -> Schema:
    """Both: maps are joined in depth, rules are added, else the second has the say."""
    both = dict(deepcopy(one))
    for key, value in deepcopy(dict(more)).items():
        there = both.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            both[key] = joined(there, value)
        elif key == "x-kubernetes-validations":
            both[key] = [*(there or []), *value]
        else:
            both[key] = value
    return both


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any], *, listed: bool = False) -> Schema:
    """A structural schema: nothing by reference, no null (the apiserver drops it), no unions of types.

    `listed` is what is part of a list, and has no defaults.
    """
    kept = {
        key: value for key, value in schema.items() if key not in {"title", "additionalProperties", "discriminator"}
    }
    if "$ref" in kept:
        # The docstring of a model is for readers of the code; the text below the field is for users.
        model = {**definitions[kept.pop("$ref").rpartition("/")[2]], "description": None}
        return structural(joined(model, kept), definitions, listed=listed)
    if {"type": "null"} in kept.get("anyOf", ()):
        [other] = [each for each in kept.pop("anyOf") if each != {"type": "null"}]
        return structural(joined(other, kept), definitions, listed=listed)
    if "discriminator" in schema:
        kept = joined(union([structural(each, definitions) for each in kept.pop("oneOf")]), kept)
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    kept = {key: value for key, value in kept.items() if not is_empty(key, value)}
    if listed and "default" in kept:
        kept = in_words(kept)
    if "description" in kept:
        kept = {"description": " ".join(kept.pop("description").split()), **kept}
    if "properties" in kept:
        each_of = kept["properties"].items()
        kept["properties"] = {name: structural(each, definitions, listed=listed) for name, each in each_of}
    if "items" in kept:
        kept["items"] = structural(kept["items"], definitions, listed=True)
    return kept


def in_words(schema: Mapping[str, Any]) -> Schema:
    """A schema whose default is text; that of an empty text is said already."""
    made = {key: value for key, value in schema.items() if key != "default"}
    if schema["default"] != "":
        made["description"] = " ".join([made.get("description", ""), f"Default `{schema['default']}`."]).strip()
    return made


def is_empty(key: str, value: object) -> bool:
    """Whether it says nothing: a default that means "left out", no text."""
    return (key == "default" and (value is None or isinstance(value, list | dict))) or (
        key == "description" and not value
    )


TAG = "by"
VALIDATIONS = frozenset({"pattern", "not", "minLength", "maxLength", "minimum", "maximum"})


def union(variants: Sequence[Schema]) -> Schema:
    """One object for several that a tag tells apart: the fields of all, and rules for who has which."""
    by_tag = {each["properties"][TAG]["enum"][0]: each["properties"] for each in variants}
    needed = {tag: each["required"] for tag, each in zip(by_tag, variants, strict=True)}
    names = list(dict.fromkeys(name for properties in by_tag.values() for name in properties))
    checks = [field_rule(name, by_tag, needed) for name in names if name != TAG]
    return {
        "type": "object",
        "properties": {
            name: field_of({tag: each[name] for tag, each in by_tag.items() if name in each}) for name in names
        },
        "required": [name for name in names if all(name in each for each in needed.values())],
        "anyOf": [
            {"properties": {TAG: {"enum": [tag]}} | {name: checked(each[name]) for name in each if checked(each[name])}}
            for tag, each in by_tag.items()
        ],
        **rules(*(check for each in checks for check in each)),
    }


def field_of(variants: Mapping[str, Schema]) -> Schema:
    """A field as it is in several variants; what each checks by itself stands beside."""
    said = [
        f"With `{tag}`: {each['description']}" + (f" Default `{each['default']}`." if "default" in each else "")
        for tag, each in variants.items()
    ]
    made: Schema = {"description": " ".join(said), "type": next(iter(variants.values()))["type"]}
    if all("enum" in each for each in variants.values()):
        made["enum"] = [word for each in variants.values() for word in each["enum"]]
    if len(variants) == 1:  # rules stand at the field alone, not in `anyOf`
        [only] = variants.values()
        made |= {key: only[key] for key in ("maxLength", "x-kubernetes-validations") if key in only}
    return made


def checked(schema: Schema) -> Schema:
    """What a field may be, beside its type."""
    return {key: value for key, value in schema.items() if key in VALIDATIONS}


def field_rule(name: str, by_tag: Mapping[str, Schema], needed: Mapping[str, Sequence[str]]) -> Iterator[Schema]:
    """Who may have a field, and who must."""
    for tag, properties in by_tag.items():
        if name not in properties:
            yield rule(f"self.{TAG} != '{tag}' || !has(self.{name})", f"no {name} with {TAG}: {tag}", name)
        elif name in needed[tag]:
            yield rule(f"self.{TAG} != '{tag}' || has(self.{name})", f"{TAG}: {tag} needs a {name}", name)


STATUS: dict[Kind, Schema] = {
    TrafficPolicy: {"type": "object", "required": ["ancestors"], "properties": {"ancestors": ANCESTORS}},
    ServiceGateway: {"type": "object", "properties": {"conditions": CONDITIONS}},
}
# The ancestors of other controllers are passed over.
CONDITIONS_AT: dict[Kind, str] = {
    TrafficPolicy: '.status.ancestors[?(@.controllerName=="xdserve.io/controller")].conditions',
    ServiceGateway: ".status.conditions",
}


def columns(kind: Kind) -> list[Schema]:
    """What `kubectl get` shows."""
    conditions = [
        {"name": name, "type": "string", "jsonPath": f'{CONDITIONS_AT[kind]}[?(@.type=="{name}")].status'}
        for name in ("Accepted", "Programmed")
    ]
    return [
        {"name": "Target", "type": "string", "jsonPath": ".spec.targetRef.name"},
        {"name": "Kind", "type": "string", "priority": 1, "jsonPath": ".spec.targetRef.kind"},
        *conditions,
        # Of several that are not true the first: the apiserver shows one value.
        {"name": "Reason", "type": "string", "jsonPath": f'{CONDITIONS_AT[kind]}[?(@.status!="True")].reason'},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]


def schema_of(kind: Kind) -> Schema:
    """The schema of a whole object."""
    spec = kind.model_fields["spec"].annotation
    made = spec.model_json_schema(schema_generator=Checked)
    definitions = made.pop("$defs", {})
    about = " ".join((inspect.getmodule(kind).__doc__ or "").split())
    return {
        "description": about,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural({**made, "description": "What is wanted."}, definitions),
            "status": {"description": "What has become of it; xdserve writes it.", **STATUS[kind]},
        },
    }


def definition(kind: Kind) -> Schema:
    """The CustomResourceDefinition of a kind."""
    plural, short, labels = NAMES[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{kind.GROUP}",
            # Users' objects go with their definition, so Helm must never delete it.
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "xdserve", **labels},
        },
        "spec": {
            "group": kind.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.KIND,
                "listKind": f"{kind.KIND}List",
                "plural": plural,
                "singular": kind.KIND.lower(),
                "shortNames": [short],
                "categories": ["xdserve"],
            },
            "versions": [
                {
                    "name": kind.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns(kind),
                    "schema": {"openAPIV3Schema": schema_of(kind)},
                }
            ],
        },
    }


class Plain(yaml.SafeDumper):
    """YAML without anchors: equal parts are written out."""

    def ignore_aliases(self, _data: object) -> bool:
        """Every part is written as it is."""
        return True


def text(kind: Kind) -> str:
    """The file of a kind."""
    made = yaml.dump(definition(kind), Dumper=Plain, width=116, allow_unicode=True)
    return f"# Made by tools/crds.py from the models of translator/objects: make crds\n{made}"


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description="Write the CustomResourceDefinitions from the models.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    wanted = {FOLDER / f"{NAMES[kind][0]}.yaml": text(kind) for kind in NAMES}
    stale = [path for path, content in wanted.items() if not path.exists() or path.read_text() != content]
    left = [path for path in FOLDER.glob("*") if path not in wanted]
    for path in [] if check else stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    for path in stale:
        print(f"crds: {path.name} {'is out of date: make crds' if check else 'written'}")
    for path in left:
        print(f"crds: {path.name} is of no kind", file=sys.stderr)
    return int(bool(left) or (check and bool(stale)))


if __name__ == "__main__":
    sys.exit(main())
