"""Write the parts of docs/ that are made from the code: settings, commands, endpoints, metrics.

A made part stands between `<!-- made by tools/docs.py: NAME -->` and `<!-- end -->`; the prose around it is written by
hand. `--check` writes nothing and fails if a part is not what the code says.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import docs_backends
import docs_edge
import docs_foreign
import typer
from markdown_tables import code, lines_of, oneline, table
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from pydantic.fields import FieldInfo

from bootstrap.address import Address
from translator.objects.base import OurModel
from translator.objects.gateway import ServiceGateway
from translator.objects.policy import TrafficPolicy
from xdserve import cli
from xdserve.admin import AdminServer, Condition, ErrorEntry, ErrorSource, RejectionEntry, StatusEntry
from xdserve.metrics import KubernetesMetrics, Metrics
from xdserve.router.admission import Admission
from xdserve.router.app import RouterApp
from xdserve.router.limiter import Limiter
from xdserve.router.metrics import RouterMetrics
from xdserve.router.settings import RouterSettings
from xdserve.router.simulation import SimulatedWork, Simulation
from xdserve.series import FAMILIES, Family
from xdserve.settings import Settings, flag_of, variable_of

DOCS = Path(__file__).parent.parent / "docs"
PART = re.compile(r"(<!-- made by tools/docs\.py: (?P<name>[a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings() -> str:
    """One row a setting."""
    return table(
        ("key in the file", "flag", "variable", "values", "default", "what it is"),
        (
            (
                code(name),
                code(flag_of(name)),
                code(variable_of(name)),
                VALUES.get(name) or values(field),
                code(default(field)),
                words(field),
            )
            for name, field in Settings.model_fields.items()
        ),
    )


def words(field: FieldInfo) -> str:
    """The description, as Markdown."""
    return escaped(field.description or "")


def escaped(text: str) -> str:
    """The text with its placeholders and patterns as code, so that they are not read as HTML or emphasis."""
    return re.sub(r"(\S*<\S+>\S*|\*[\w.]*)", r"`\1`", text)


def default(field: FieldInfo) -> str:
    """The default as a user would write it."""
    value = field.default
    if value is None or value in ({}, (), ""):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(getattr(value, "value", value))


VALUES = {
    "source": "a path or `kubernetes`",
    "namespaces": "a list; as flag or variable names by commas",
    "gateway_pull_secrets": "a list; as flag or variable names by commas",
    "selector": "a label selector",
    "gateway_image": "an image",
    "router_image": "an image",
    "gateway_xds_address": "`HOST:PORT`",
    "gateway_ca_file": "an absolute path",
    "release": "a name of Kubernetes",
    "allowed_hosts": "a map of lists; as flag or variable `NAMESPACE=HOST` words",
    "kserve_config_map": "`NAMESPACE/NAME`",
    "gateway_address": "an IP address",
    "url_scheme": "`http` `https`",
    "domain": "a DNS name",
    "domain_template": "a template",
    "path_template": "a template",
}
"""What may be given, where the type alone does not say it."""


def values(field: FieldInfo) -> str:
    """What may be given."""
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " ".join(code(member.value) for member in kind)
    low, high = (next((getattr(m, key) for m in field.metadata if hasattr(m, key)), None) for key in ("ge", "le"))
    if low is not None:
        return f"{low}..{high}"
    names = {bool: "`true` `false`", Address: "`HOST:PORT`", str: "a DNS name", Path | None: "a path"}
    return names[kind]


def commands() -> str:
    """One section a command: its words, arguments and options."""
    group: Any = typer.main.get_command(cli.app)
    sections = []
    for name, command in group.commands.items():
        arguments = " ".join(p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument")
        rows = [(code(", ".join(p.opts)), code(p.metavar or ""), option_words(p)) for p in options(command)]
        usage = " ".join(["xdserve", name, *filter(None, [arguments]), *required(command), *["[OPTIONS]"] * bool(rows)])
        listed = f"\n\n{table(('option', 'value', 'what it is'), rows)}" if rows else "\n"
        sections.append(f"### {name}\n\n```\n{usage}\n```\n\n{command.help}{listed}")
    return "\n".join(sections)


def options(command: Any) -> list[Any]:
    """The options of a command, without `--help`."""
    return [p for p in command.params if p.param_type_name == "option" and p.name != "help"]


def required(command: Any) -> list[str]:
    """The options that a command cannot do without, as a user writes them."""
    return [f"{p.opts[0]} {p.metavar}" for p in options(command) if p.required]


def option_words(option: Any) -> str:
    """What an option is, and its default where it has one."""
    plain = escaped(option.help or "")
    shown = option.default
    if option.required or shown is None or shown is False or callable(shown):
        return plain
    return f"{plain} Default `{getattr(shown, 'value', shown)}`."


def endpoints() -> str:
    """One row an endpoint."""
    server = AdminServer(Address("127.0.0.1", 0), Nothing(), Metrics(process=False))
    rows = [("`/`", "The endpoints, as JSON"), *((code(e.path), e.text) for e in server.endpoints())]
    return table(("path", "answer"), rows)


class Nothing:
    """A state without anything in it: the list of endpoints needs none."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_: None


def shapes() -> str:
    """The shapes of entries, field by field."""
    parts = []
    for kind in (ErrorEntry, ErrorSource, RejectionEntry, StatusEntry, Condition):
        rows = [(code(name), spelled(hint)) for name, hint in get_type_hints(kind).items()]
        parts.append(f"**{kind.__name__}**: {(kind.__doc__ or '').strip()}\n\n{table(('field', 'type'), rows)}")
    return "\n".join(parts)


def spelled(hint: Any) -> str:
    """A type as JSON names it."""
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    text = re.sub(r"[\w.]+\.(\w+)", r"\1", text).replace(" | None", " or null")
    text = re.sub(r"list\[(\w+)\]", r"list of \1", text)
    return re.sub(r"\bint\b", "number", re.sub(r"\bstr\b", "string", text))


def metrics() -> str:
    """One row a metric of the program's own."""
    of_gateways = ((code(f.name), f.kind, ", ".join(open_labels(f)), f.text) for f in FAMILIES)
    return metrics_of(Metrics(process=False).registry) + lines_of(of_gateways)


def kubernetes_metrics() -> str:
    """One row a metric of what runs on Kubernetes alone."""
    metrics = Metrics(process=False)
    others = {metric.name for metric in metrics.registry.collect()}
    KubernetesMetrics(metrics)
    return metric_rows(metric for metric in metrics.registry.collect() if metric.name not in others)


def open_labels(family: Family) -> list[str]:
    """Each label with its values, where these are known before the program runs."""
    return [
        f"{code(name)}: {' '.join(map(code, values))}" if values else code(name)
        for name, values in family.labels.items()
    ]


def metrics_of(registry: CollectorRegistry) -> str:
    """One row a metric."""
    return metric_rows(registry.collect())


def metric_rows(metrics: Iterable[Metric]) -> str:
    """One row each."""
    return table(
        ("metric", "type", "labels", "what it counts"),
        ((code(full_name(m)), m.type, ", ".join(labels(m)), m.documentation) for m in metrics),
    )


def router_settings() -> str:
    """One row a variable of the router."""
    schema = RouterSettings.model_json_schema()
    return table(
        ("variable", "values", "default", "what it is"),
        (
            (code(variable), router_values(field, schema["$defs"]), router_default(field), field["description"])
            for variable, field in ((name.upper(), field) for name, field in schema["properties"].items())
        ),
    )


def router_values(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What may be given, from the JSON schema of a setting."""
    shape = field.get("anyOf", [field])[0]
    if "$ref" in shape:
        return " ".join(map(code, definitions[shape["$ref"].rpartition("/")[2]]["enum"]))
    if "exclusiveMinimum" in shape:
        return f"more than {shape['exclusiveMinimum']}, at most {shape['maximum']}"
    if "maximum" in shape:
        return f"{shape['minimum']}..{shape['maximum']}"
    return {"array": "texts, parted by commas", "string": "text"}[shape["type"]]


def router_default(field: dict[str, Any]) -> str:
    """The default as a user would write it."""
    return code("" if field["default"] in (None, []) else str(field["default"]))


def router_endpoints() -> str:
    """One row an endpoint of the router with its simulation."""
    settings = RouterSettings()
    admission = Admission(settings)
    app = RouterApp(settings, admission, SimulatedWork(Simulation(settings, admission)))
    rows = ((code(f"{e.method} {e.shown}" if e.method != "*" else e.shown), e.text) for e in app.endpoints())
    return table(("request", "answer"), rows)


def router_metrics() -> str:
    """One row a metric of the router's own."""
    return metrics_of(RouterMetrics(Limiter(1, 0), lambda: 0, process=False).registry)


def full_name(metric: Metric) -> str:
    """The name in the exposition: a counter's ends in `_total`."""
    return metric.name + "_total" if metric.type == "counter" else metric.name


def labels(metric: Metric) -> list[str]:
    """Each label with its values."""
    names = {key for sample in metric.samples for key in sample.labels} - {"le"}
    return [
        f"`{name}`: " + " ".join(dict.fromkeys(code(sample.labels[name]) for sample in metric.samples))
        for name in sorted(names)
    ]


def api() -> str:
    """One section a kind of xdserve's own: every field with its path, what it may be and what it means."""
    sections = []
    for kind in (TrafficPolicy, ServiceGateway):
        head = ("field", "default", "what it is")
        sections.append(f"### {kind.KIND}\n\n{table(head, fields(kind.model_fields['spec'].annotation, 'spec'))}")
    return "\n".join(sections)


def fields(model: Any, path: str) -> Iterable[Sequence[str]]:
    """A row for each field of a model and of the models in it."""
    for name, field in model.model_fields.items():
        here = f"{path}.{field.alias or name}"
        inner = list(inner_models(field.annotation))
        many = "tuple" in str(field.annotation)
        choice = " ".join(code(value) for value in choices(field.annotation))
        yield code(here + "[]" * many), shown_default(field, inner), " ".join(filter(None, (oneline(field), choice)))
        for each in inner:
            yield from fields(each, here + "[]" * many)


def inner_models(hint: Any) -> Iterable[Any]:
    """The models in a type, however deep."""
    if isinstance(hint, type) and issubclass(hint, OurModel):
        yield hint
    for each in get_args(hint):
        yield from inner_models(each)


def choices(hint: Any) -> Iterable[str]:
    """The words that a field may be."""
    if get_origin(hint) is Literal:
        yield from (str(value) for value in get_args(hint))
        return
    if get_origin(hint) is not tuple:
        for each in get_args(hint):
            yield from choices(each)


def shown_default(field: FieldInfo, inner: Sequence[object]) -> str:
    """The default of a field as a user would write it; what must be given says so."""
    if field.is_required():
        return "required"
    return "" if inner or field.default in {None, (), ""} else code(str(field.default))


def not_yet() -> str:
    """One row a model that refuses what is not built yet."""
    rows = []
    for model in sorted(models(OurModel), key=lambda model: model.__name__):
        values = [f"{name}: {value}" for name, refused in model.NOT_YET_VALUES.items() for value in sorted(refused)]
        if names := [*sorted(model.NOT_YET_FIELDS), *values]:
            rows.append((model.__name__, " ".join(code(name) for name in names)))
    return table(("part", "not yet supported"), rows)


def models(base: type[OurModel]) -> Iterable[type[OurModel]]:
    """Every model below this one."""
    for model in base.__subclasses__():
        yield model
        yield from models(model)


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "commands": commands,
    "endpoints": endpoints,
    "shapes": shapes,
    "metrics": metrics,
    "kubernetesmetrics": kubernetes_metrics,
    "notyet": not_yet,
    "routersettings": router_settings,
    "routerendpoints": router_endpoints,
    "routermetrics": router_metrics,
    "api": api,
    "ports": docs_backends.ports,
    "edgelimits": docs_edge.limits,
    "retries": docs_edge.retries,
    "localreplies": docs_edge.answers,
    "foreignfields": docs_foreign.fields,
    "passedover": docs_foreign.passed_over,
}


def made(text: str) -> str:
    """The text of a file with its made parts as they should be."""
    return PART.sub(lambda match: f"{match[1]}{PARTS[match['name']]()}{match[3]}", text)


def main() -> int:
    """Write the parts, or check them."""
    parser = argparse.ArgumentParser(description="Write the parts of docs/ that are made from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a part is out of date")
    check = parser.parse_args().check
    found: set[str] = set()
    stale = []
    for path in sorted(DOCS.glob("**/*.md")):
        text = path.read_text()
        found.update(match["name"] for match in PART.finditer(text))
        if (new := made(text)) != text:
            stale.append(path)
            if not check:
                path.write_text(new)
    for name in sorted(PARTS.keys() - found):
        print(f"docs: no file has the part {name}", file=sys.stderr)
    for path in stale:
        print(f"docs: {path.relative_to(DOCS.parent)} {'is out of date: make docs' if check else 'written'}")
    return int(bool(PARTS.keys() - found) or (check and bool(stale)))


if __name__ == "__main__":
    sys.exit(main())
