"""The steps with iris's canary, each a promise of xdserve and the measurement that holds it to it."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections import Counter
from typing import Any

from xdserve.demo import statistics
from xdserve.demo.driver import Answer, Connection, Tally, connect
from xdserve.demo.gateway import Gateway
from xdserve.demo.models import HOST
from xdserve.demo.play import REQUESTS, Play
from xdserve.demo.report import Step, percent
from xdserve.demo.waiting import until

EDITS = 20
USERS = 700
VISITS = 3
_MOST_EDITS = 200
_SETTLE = 100
_LIVE_SECONDS = 10.0
_USERS_AT_ONCE = 8
_TESTER = {"x-tester": "true"}


async def canary(play: Play, name: str) -> Step:
    """The split as it is written in the example."""
    failed = play.traffic.failed
    tally = await play.measure("the canary as written: 90/10")
    return play.share_step(name, tally, failed)


async def moved(play: Play, name: str) -> Step:
    """An edit of the file moves the split."""
    failed = play.traffic.failed
    await play.move(50, 50)
    tally = await play.measure("the file edited: 90/10 -> 50/50")
    return play.share_step(name, tally, failed)


async def latency(play: Play, name: str) -> Step:
    """From the rename of the edited file to the first answer by the new rule."""
    failed, traffic = play.traffic.failed, play.traffic
    await play.move(100, 0)
    whole = Tally()
    play.reporter.begin("edits to and fro, all to one and then all to the other", {}, whole)
    times: list[float] = []
    wrong = 0
    weights = [(0, 100), (100, 0)]
    while (len(times) < EDITS or time.perf_counter() - whole.since < play.seconds) and len(times) < _MOST_EDITS:
        stable, v2 = weights[len(times) % 2]
        wanted = "v2" if v2 else "stable"
        times.append(await _flip(play, wanted, play.stage.policy.split(stable, v2)))
        after = traffic.count()
        await traffic.until(after, requests=_SETTLE)
        wrong += after.variants.total() - after.variants[wanted]
        whole.variants += after.variants
        whole.statuses += after.statuses
    return _latency_step(name, whole, times, wrong=wrong, failed=traffic.failed - failed)


async def _flip(play: Play, variant: str, text: str) -> float:
    """Milliseconds from the rename to the first answer of `variant`, which had nothing before."""
    first = play.traffic.expect(variant)
    renamed = play.stage.policy.replace(text)
    return (await asyncio.wait_for(first, _LIVE_SECONDS) - renamed) * 1000


def _latency_step(name: str, whole: Tally, times: list[float], *, wrong: int, failed: int) -> Step:
    figures = statistics.summary(times)
    return Step(
        name=name, expected=f"{EDITS} edits or more, none answered by the old rule after the new",
        seen=f"{len(times)} edits: median {figures['median']} ms, p99 {figures['p99']} ms; {wrong} by the old rule",
        held=len(times) >= EDITS and wrong == 0 and failed == 0,
        requests=whole.total, failed=failed, wanted={}, counts=dict(whole.variants), edit_to_answer_ms=figures,
    )  # fmt: skip


async def testers(play: Play, name: str) -> Step:
    """A tester's header always leads to the new model, whatever the split."""
    failed = play.traffic.failed
    await play.move(90, 10)
    wanted = {"v2": 1.0}
    iris = play.stage.iris
    async with iris.traffic(iris.request(_TESTER)).running() as traffic:
        tally = traffic.count()
        play.reporter.begin("a tester's header: always v2", wanted, tally)
        await traffic.until(tally, requests=REQUESTS, seconds=play.seconds)
    lost = play.traffic.failed - failed + traffic.failed
    return Step(
        name=name, expected=percent(wanted), seen=percent(tally.shares()),
        held=set(tally.variants) == {"v2"} and lost == 0,
        requests=tally.total, failed=lost, wanted=wanted, counts=dict(tally.variants),
    )  # fmt: skip


async def sticky(play: Play, name: str) -> Step:
    """New users meet the backend of their first answer again, and are split as wanted."""
    failed, iris, policy = play.traffic.failed, play.stage.iris, play.stage.policy
    await iris.edit(policy, policy.sticky())
    tally = Tally()
    play.reporter.begin(f"a sticky cookie: {USERS} new users, {VISITS} visits each", play.wanted, tally)
    visits = await _users(iris, tally)
    await iris.edit(policy, policy.good)
    faithful = sum(1 for answers in visits if _faithful(answers))
    first = Counter(answers[0].variant for answers in visits if answers)
    counts = {variant: first[variant] for variant in play.wanted} | dict(first)
    lost = play.traffic.failed - failed + tally.failed
    return Step(
        name=name, expected=f"{USERS} of {USERS} users meet the same backend again; {percent(play.wanted)}",
        seen=f"{faithful} of {len(visits)}; {percent({name: count / len(visits) for name, count in counts.items()})}",
        held=faithful == len(visits) == USERS and statistics.agrees(play.wanted, counts) and lost == 0,
        requests=tally.total, failed=lost, wanted=play.wanted, counts=counts, figures={"same": faithful},
    )  # fmt: skip


async def _users(gateway: Gateway, tally: Tally) -> list[list[Answer]]:
    each = [USERS // _USERS_AT_ONCE + (index < USERS % _USERS_AT_ONCE) for index in range(_USERS_AT_ONCE)]
    groups = await asyncio.gather(*(_some_users(gateway, count, tally) for count in each))
    return [answers for group in groups for answers in group]


async def _some_users(gateway: Gateway, count: int, tally: Tally) -> list[list[Answer]]:
    """`count` users one after the other on one connection: the cookie alone must tell them apart."""
    connection = await connect(HOST, gateway.port)
    try:
        return [await _visits(gateway, connection, tally) for _ in range(count)]
    finally:
        connection.close()


async def _visits(gateway: Gateway, connection: Connection, tally: Tally) -> list[Answer]:
    """The answers to one new user, who keeps the first cookie."""
    answers: list[Answer] = []
    for _ in range(VISITS):
        cookie = answers[0].cookie.partition(";")[0] if answers else ""
        answer = await connection.ask(gateway.request({"cookie": cookie} if cookie else None))
        answers.append(answer)
        tally.add(answer)
    return answers


def _faithful(answers: list[Answer]) -> bool:
    """Whether a user got a cookie and met one backend only."""
    return bool(answers[0].cookie) and len({answer.variant for answer in answers}) == 1


async def broken_yaml(play: Play, name: str) -> Step:
    """A file that is no YAML any more changes nothing, and it is said where it is broken."""
    return await _broken(play, name, play.stage.policy.good.replace("spec:", "spec: {", 1), "")


async def bad_field(play: Play, name: str) -> Step:
    """A value that is not allowed changes nothing, and its field is named."""
    text = re.sub(r"(backend: v2, weight: )\d+", r"\g<1>-5", play.stage.policy.good, count=1)
    return await _broken(play, name, text, "spec.split[1].weight")


async def _broken(play: Play, name: str, text: str, field: str) -> Step:
    """The split before goes on, and `/debug/errors` names file, document and `field`."""
    failed = play.traffic.failed
    play.stage.policy.replace(text)
    error = await until(lambda: _error(play, field), f"/debug/errors to name {play.stage.policy.name} {field}")
    tally = await play.measure(f"{name}: traffic goes on as before")
    step = play.share_step(name, tally, failed)
    where = f"{error['source']['file']}, document {error['source']['document']}" + (f", {field}" if field else "")
    return dataclasses.replace(
        step, expected=f"{step.expected} as before; file, document and field named",
        seen=f"{step.seen}; {where}", held=step.held and bool(error["message"]),
        detail=error["message"], figures={"error": error},
    )  # fmt: skip


async def _error(play: Play, field: str) -> dict[str, Any] | None:
    """The finding about the policy's file and `field`, if there is one."""
    errors = await play.stage.server.errors()
    found = (error for error in errors if (error.get("source") or {}).get("file") == play.stage.policy.name)
    return next((error for error in found if error["field"] == field and error["source"]["document"] is not None), None)


async def mended(play: Play, name: str) -> Step:
    """The mended file is live at once, and nothing is left to complain about."""
    failed = play.traffic.failed
    await play.move(75, 25)
    await until(lambda: _no_errors(play), "/debug/errors to be empty")
    tally = await play.measure("mended, and moved on to 75/25")
    step = play.share_step(name, tally, failed)
    expected, seen = (f"{text}; no errors listed" for text in (step.expected, step.seen))
    return dataclasses.replace(step, expected=expected, seen=seen, figures={"errors": []})


async def _no_errors(play: Play) -> bool:
    return not await play.stage.server.errors()
