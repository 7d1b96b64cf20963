"""What a run came to: the figures, and everything that should not have happened."""

from __future__ import annotations

import math
from collections import Counter

from tests.chaos.chaos import STALE

_SHOWN = 20
"""Of each kind of wrong, so that a log stays readable."""


def figures(chaos):
    """The lines to print."""
    traffic, streams, found = chaos.traffic, chaos.streams, chaos.figures
    restarts = chaos.pair.restarts
    times = sorted(asked.answered - asked.sent for asked in traffic.asked)
    ages = sorted(age for age, _ in staleness(chaos) if age < math.inf)
    moves = sorted(found.reconnects)
    return [
        f"seed {found.seed}, Envoy with --concurrency {found.concurrency}",
        f"edits {sum(chaos.editor.made.values())} ({chaos.world.edits} writes of files, {len(chaos.farm)} processes)",
        "  " + ", ".join(f"{name} {count}" for name, count in sorted(chaos.editor.made.items())),
        f"restarts {restarts.terms + restarts.kills}: {restarts.terms} SIGTERM, {restarts.kills} SIGKILL",
        f"requests {len(traffic.asked)} on {traffic.connections} connections, statuses {dict(traffic.statuses())}",
        f"  seconds p50 {_at(times, 0.5):.4f}, p99 {_at(times, 0.99):.4f}, longest {times[-1]:.3f}",
        f"streams {streams.whole} whole, {len(streams.broken)} broken, longest gap {streams.longest_gap:.2f} s",
        f"stream of the Envoy lost {len(moves)} times; seconds p50 {_at(moves, 0.5):.2f}, longest {moves[-1]:.2f}",
        f"answers by what was over: {sum(age > 0 for age in ages)}, oldest {ages[-1] if ages else 0:.2f} s",
        f"rests {found.rests}, resources resent upon reconnects at rest: {dict(found.resent) or 0}",
    ]


def wrongs(chaos):
    """Everything that must not happen; empty is good."""
    failed = [f"{one}" for one in chaos.traffic.asked if one.failed]
    stale = [f"{age:.2f} s too old or never right: {asked}" for age, asked in staleness(chaos) if age > STALE]
    resent = [f"resent at rest: {dict(chaos.figures.resent)}"] if chaos.figures.resent else []
    codes = {code: count for code, count in chaos.pair.restarts.codes.items() if code}
    ended = [f"servers ended with {codes}"] if codes else []
    return [
        *failed[:_SHOWN], *stale[:_SHOWN], *chaos.streams.broken, *chaos.figures.hidden, *resent, *ended, *_said(chaos)
    ]  # fmt: skip


def staleness(chaos):
    """Each answer that a process gave, with the age of the newest state of the files by which it is right."""
    return [(chaos.history.staleness(one), one) for one in chaos.traffic.asked if not one.failed]


def _said(chaos):
    """Errors in the logs of the servers."""
    logs = [log for replica in chaos.replicas for log in sorted(replica.objects.parent.glob("*/xdserve-*.log"))]
    lines = Counter(line for log in dict.fromkeys(logs) for line in log.read_text().splitlines())
    return [line for line in lines if '"level": "error"' in line or "Traceback" in line][:_SHOWN]


def _at(values, share):
    return values[int(len(values) * share)]
