"""What a real Envoy has against resources, and against which of them."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from translator.objects.errors import one_line, shorten
from xdserve.offline import static
from xdserve.offline.static import Part, Sections, Where

AT_ONCE = 200
"""Gateways in one run of Envoy, which takes it about a second."""

MOST_RUNS = 200
"""Runs that go into finding out what exactly is refused; after that only the group that it is in is told."""

TIMEOUT = 120.0
_LONGEST = 400


class NotAnEnvoyError(Exception):
    """A program cannot be run, or is something else."""


class Refusal(NamedTuple):
    """Envoy's words about something."""

    where: Where
    words: str


class Envoy:
    """Runs a binary in its mode of validation; says nothing, or why it refuses."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._file = folder / "bootstrap.json"
        self.runs = 0

    def __call__(self, parts: Sequence[Part]) -> str | None:
        """Envoy's words against some parts; None if it has none."""
        self.runs += 1
        self._file.write_text(json.dumps(static.configuration(parts)))
        try:
            done = _run(self._binary, "--mode", "validate", "--config-path", str(self._file), "--log-level", "error")
        except subprocess.TimeoutExpired:
            return f"no answer in {TIMEOUT:g} s"
        if done.returncode == 0:
            return None
        return (
            words(done.stderr + done.stdout, {part.where.gateway for part in parts}) or f"exit code {done.returncode}"
        )


def refusals(binary: Path, gateways: Mapping[str, Sections]) -> list[Refusal]:
    """All that an Envoy refuses, as near to its cause as can be told; the gateways by whatever they are called.

    Of ``gateways`` only ``AT_ONCE`` are looked up and held at one time.

    Raises:
        NotAnEnvoyError: the binary cannot be run, or is something else.
    """
    _check(binary)
    with tempfile.TemporaryDirectory(prefix="xdserve-") as folder:
        return list(_refusals(Envoy(binary, Path(folder)), gateways))


def _refusals(envoy: Envoy, gateways: Mapping[str, Sections]) -> Iterator[Refusal]:
    names = iter(gateways)
    while chunk := list(islice(names, AT_ONCE)):
        yield from _refused_at_once(envoy, {name: gateways[name] for name in chunk})


def _refused_at_once(envoy: Envoy, gateways: Mapping[str, Sections]) -> Iterator[Refusal]:
    gaps = [gap for gateway, sections in gateways.items() for gap in static.gaps(gateway, sections)]
    yield from (Refusal(*gap) for gap in gaps)
    complete = gateways.keys() - {where.gateway for where, _ in gaps}
    whole = [static.everything(name, gateways[name]) for name in gateways if name in complete]
    for parts, said in _narrowed(envoy, whole):
        if len(parts) > 1:
            yield Refusal(parts[0].where, f"{said} (one of {len(parts)} gateways, from this one on)")
        else:
            yield from _inside(envoy, parts[0].where.gateway, gateways[parts[0].where.gateway], said)


def _inside(envoy: Envoy, gateway: str, sections: Sections, said: str) -> Iterator[Refusal]:
    """Which resources of a gateway it is; the gateway itself if each of them is fine alone."""
    found = _narrowed(envoy, list(static.resources(gateway, sections)))
    alone = {parts[0].where: words for parts, words in found if len(parts) == 1}
    if not alone:
        yield Refusal(Where(gateway), said)
    for where, words in alone.items():
        if where.section == static.ROUTES and any(each.section == static.LISTENERS for each in alone):
            continue  # routes are checked in their listener, which is refused already
        if where.section == static.ENDPOINTS and where._replace(section=static.CLUSTERS) in alone:
            continue
        yield from _routes(envoy, where, sections, words)


def _routes(envoy: Envoy, where: Where, sections: Sections, said: str) -> Iterator[Refusal]:
    """Which routes of a route configuration it is, where it is one of them."""
    if where.section == static.ROUTES:
        found = _narrowed(envoy, list(static.routes(where.gateway, sections, where.name)))
        alone = [Refusal(parts[0].where, words) for parts, words in found if len(parts) == 1]
        if alone:
            yield from alone
            return
    yield Refusal(where, said)


def _narrowed(envoy: Envoy, parts: Sequence[Part]) -> list[tuple[Sequence[Part], str]]:
    """The smallest groups that are refused, by halving: parts that are fine alone and not together stay together."""
    said = envoy(parts) if parts else None
    if said is None:
        return []
    if len(parts) == 1 or envoy.runs >= MOST_RUNS:
        return [(parts, said)]
    middle = len(parts) // 2
    return [*_narrowed(envoy, parts[:middle]), *_narrowed(envoy, parts[middle:])] or [(parts, said)]


def words(text: str, gateways: Iterable[str] = ()) -> str:
    """What Envoy means, in one line, without what it was shown and without the names that only the check uses."""
    found = re.search(r"error initializing configuration '[^']*': (.*)", text, re.DOTALL)
    said = found[1] if found else text
    if (at := said.rfind("Proto constraint validation failed")) >= 0:
        # The message in the message in the message: the innermost field is the one that is wrong.
        said = said[at:].strip().rpartition("caused by ")[2].removesuffix(")").replace("ValidationError.", ".")
    said = re.sub(r"(could not find @type '[^']*'\)): \{.*", r"\1", said, flags=re.DOTALL)
    for gateway in sorted(gateways, key=len, reverse=True):
        said = said.replace(f"{static.AS_IS}{gateway}:", "").replace(f"{gateway}:", "")
    return shorten(one_line(" ".join(said.split())), _LONGEST)


def _check(binary: Path) -> None:
    try:
        said = _run(binary, "--version").stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAnEnvoyError(f"{binary} cannot be run: {error}") from error
    if "envoy" not in said or "version" not in said:
        raise NotAnEnvoyError(f"{binary} is no Envoy: its --version says {one_line(shorten(said.strip()))!r}")


def _run(binary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the binary that the user names
        [str(binary), *arguments], capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False
    )
