"""Findings and differences as lines, coloured on a terminal alone, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from xdserve.offline.comparison import Change, Comparison, GatewayChange, Verb
from xdserve.offline.findings import Said, Severity
from xdserve.offline.validation import Validated
from xdserve.printing import SECTIONS

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_SIGNS = {Verb.ADDED: "+", Verb.CHANGED: "~", Verb.REMOVED: "-", Verb.AGAIN: "="}
_COLOURS = {"+": "green", "-": "red", "~": "yellow", "=": "dim", "@": "cyan"}


def as_text(lines: Iterable[Text]) -> str:
    """Lines as standard output can show them."""
    if not sys.stdout.isatty():
        encoding = sys.stdout.encoding
        text = "".join(f"{line.plain}\n" for line in lines)
        return text.encode(encoding, "backslashreplace").decode(encoding)
    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as capture:
        for line in lines:
            console.print(line)
    return capture.get()


def as_json(content: object) -> str:
    """Plain data as JSON in ASCII."""
    return json.dumps(content, indent=2) + "\n"


# -- Findings ------------------------------------------------------------------------------------------------------


def validated(result: Validated, *, quiet: bool) -> Iterator[Text]:
    """One line a finding, and one that sums up; if ``quiet``, errors alone."""
    for said in result.said:
        if not quiet or said.severity is Severity.ERROR:
            yield _said(said)
    if not quiet:
        found = ", ".join(_count(result.count(severity), severity) for severity in Severity)
        yield Text(
            f"{_count(result.files, 'file')}, {_count(result.objects, 'object')}, "
            f"{_count(result.gateways, 'gateway')}: {found}",
            style="bold",
        )


def findings_data(said: Iterable[Said]) -> list[dict[str, Any]]:
    """The entries of `/debug/errors` without their time, and how bad each is."""
    return [
        {
            "severity": severity.value,
            "source": None if entry.place is None else {"file": entry.place.file, "document": entry.place.document},
            "object": None if entry.object is None else str(entry.object),
            "field": entry.field,
            "reason": entry.reason,
            "message": entry.message,
        }
        for severity, entry in said
    ]


def _said(said: Said) -> Text:
    return Text(str(said), style=_STYLES[said.severity])


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# -- Differences ---------------------------------------------------------------------------------------------------


def compared(result: Comparison) -> Iterator[Text]:
    """Gateway by gateway, resource by resource; then what is wrong now, what no longer is, and a sum."""
    for gateway in result.gateways:
        yield from _gateway(gateway)
    for title, said in (("new findings", result.new), ("mended findings", result.mended)):
        if said:
            yield Text(f"{title}:", style="bold")
            yield from (Text("  ").append_text(_said(each)) for each in said)
    yield from _summary(result)


def _gateway(gateway: GatewayChange) -> Iterator[Text]:
    note = " (new)" if gateway.is_new else "" if gateway.has_target else " (its target is gone: it answers 404)"
    yield Text(f"gateway {gateway.name}{note}", style="bold")
    for change in gateway.changes:
        sign = _SIGNS[change.verb]
        why = " (unchanged, sent again after its cluster)" if change.verb is Verb.AGAIN else ""
        yield Text(f"  {sign} {SECTIONS[change.kind]} {change.name}{why}", style=_COLOURS[sign])
        if change.verb is Verb.CHANGED:
            yield from (Text(f"      {line}", style=_COLOURS.get(line[:1], "")) for line in change.lines())


def _summary(result: Comparison) -> Iterator[Text]:
    if not result.gateways:
        yield Text("nothing is sent", style="bold")
        return
    cut = _cut(result)
    listeners = "LISTENERS CHANGE" if cut else "listeners unchanged"
    sent = result.count(Verb.ADDED, Verb.CHANGED, Verb.AGAIN)
    size = sum(gateway.bytes for gateway in result.gateways)
    yield Text(
        f"{_count(len(result.gateways), 'gateway')}, {_count(sent, 'resource')} sent, "
        f"{result.count(Verb.REMOVED):,} removed; {listeners}; {_count(size, 'byte')} for one Envoy of each",
        style="bold",
    )
    if cut:
        yield Text(f"LISTENERS CHANGE, which cuts running streams: {', '.join(cut)}", style="bold white on red")


def _cut(result: Comparison) -> list[str]:
    return [gateway.name for gateway in result.gateways if gateway.cuts_streams]


def comparison_data(result: Comparison) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "gateways": {gateway.name: _gateway_data(gateway) for gateway in result.gateways},
        "findings": {"new": findings_data(result.new), "mended": findings_data(result.mended)},
        "summary": {
            "gateways": len(result.gateways),
            "sent": result.count(Verb.ADDED, Verb.CHANGED, Verb.AGAIN),
            "removed": result.count(Verb.REMOVED),
            "bytes": sum(gateway.bytes for gateway in result.gateways),
            "changedListeners": _cut(result),
        },
    }


def _gateway_data(gateway: GatewayChange) -> dict[str, Any]:
    return {
        "new": gateway.is_new,
        "hasTarget": gateway.has_target,
        "bytes": gateway.bytes,
        "changes": [_change_data(change) for change in gateway.changes],
    }


def _change_data(change: Change) -> dict[str, Any]:
    data: dict[str, Any] = {"type": SECTIONS[change.kind], "name": change.name, "change": change.verb.value}
    if change.verb is Verb.CHANGED:
        data["diff"] = change.lines()
    return data


def serialized(resources: object, *, as_json: bool) -> str:
    """Plain data as JSON or YAML."""
    if as_json:
        return json.dumps(resources, indent=2, ensure_ascii=False) + "\n"
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(resources, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120))
