"""`xdserve demo`: three gateways edited and broken while traffic goes on, each promise measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCENARIOS = (
    "canary", "move", "latency", "tester", "sticky", "broken-yaml", "bad-field", "mended", "protocols", "transformer",
    "kubedl", "stream", "limit", "envoy-killed", "xdserve-killed",
)  # fmt: skip
"""The demo's steps by name, in their order. Each can also be played alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `xdserve demo` was asked for.

    `seconds` is the least time of a step; `json` a file for the figures; `keep` leaves everything running at the end
    until Ctrl-C; `envoy` names a binary other than the one of the extra `xdserve[demo]`; `scenario` one step of
    `SCENARIOS`, without it all are played.
    """

    plain: bool = False
    seconds: float = 5.0
    json: Path | None = None
    keep: bool = False
    envoy: Path | None = None
    scenario: str | None = None


def run(options: Options) -> int:
    """Run the demo to its end and give the exit code: 0 all held, 1 something did not, 2 it could not be started.

    Raises KeyboardInterrupt on Ctrl-C, after all children have been stopped.
    """
    from xdserve.demo.scenario import play  # noqa: PLC0415 - keeps `xdserve --help` fast

    return play(options)
