"""The steps with the language model: streams that edits do not cut, and the router's limit with its queue."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from xdserve.demo.files import with_connect_timeout, with_rule
from xdserve.demo.gateway import Gateway
from xdserve.demo.models import PLACES, QUEUE
from xdserve.demo.play import Play
from xdserve.demo.report import Step
from xdserve.demo.waiting import until

STREAMS = 8
WORDS = 30
BURST = 12
_SECONDS = aiohttp.ClientTimeout(total=60)


@dataclass(slots=True)
class Stream:
    """One streamed answer: its words so far, and whether it came to its end."""

    words: list[str] = field(default_factory=list)
    done: bool = False


@asynccontextmanager
async def _together() -> AsyncIterator[list[asyncio.Task[Any]]]:
    """A list for tasks, none of which outlives the block."""
    tasks: list[asyncio.Task[Any]] = []
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def stream(play: Play, name: str) -> Step:
    """Streamed answers run through three edits, and come whole."""
    stage, failed = play.stage, play.traffic.failed
    good = stage.llm_policy.good
    ruled = with_rule(good)
    edits = ((ruled, "route_configs"), (with_connect_timeout(ruled), "clusters"), (good, "route_configs"))
    play.reporter.begin(f"{STREAMS} streamed answers, three edits meanwhile", {}, play.traffic.count())
    streams = [Stream() for _ in range(STREAMS)]
    async with aiohttp.ClientSession(timeout=_SECONDS) as session, _together() as running:
        running += [asyncio.create_task(_read(session, stage.llm, one)) for one in streams]
        for index, (text, kind) in enumerate(edits, 1):
            await _all_have(streams, index * WORDS // 10)
            await stage.llm.edit(stage.llm_policy, text, kind)
        meanwhile = sum(not one.done for one in streams)
        await asyncio.gather(*running)
    whole = sum(one.done and one.words == _answer() for one in streams)
    seen = f"{whole} of {STREAMS} whole, in order, to [DONE]; {meanwhile} were still running after the third edit"
    lost = play.traffic.failed - failed
    return Step(
        name=name, expected=f"{STREAMS} of {STREAMS} whole, in order, to [DONE], through 3 edits", seen=seen,
        held=whole == meanwhile == STREAMS and lost == 0, requests=STREAMS, failed=lost + STREAMS - whole,
        wanted={}, counts={}, figures={"whole": whole, "through": meanwhile, "edits": len(edits)},
    )  # fmt: skip


async def _all_have(streams: Sequence[Stream], words: int) -> None:
    async def have() -> bool:
        return all(len(one.words) >= words for one in streams)

    await until(have, f"all streams to have {words} words", 30.0)


def _answer() -> list[str]:
    return [f"word{index}" for index in range(WORDS)]


async def _read(session: aiohttp.ClientSession, gateway: Gateway, into: Stream) -> None:
    """Ask for a streamed chat completion, and take its parts as they come; one that is cut stays undone."""
    message = {"role": "user", "content": " ".join(_answer())}
    body = {"model": gateway.service, "stream": True, "messages": [message]}
    url, host = f"{gateway.url}/v1/chat/completions", {"host": gateway.host()}
    try:
        async with session.post(url, json=body, headers=host) as response:
            async for line in response.content:
                if line.startswith(b"data: "):
                    _take(line.removeprefix(b"data: ").strip(), into)
    except aiohttp.ClientError:
        into.done = False


def _take(event: bytes, into: Stream) -> None:
    if event == b"[DONE]":
        into.done = True
        return
    delta = json.loads(event)["choices"][0]["delta"]
    if word := delta.get("content", "").strip():
        into.words.append(word)


@dataclass(frozen=True, slots=True)
class Infer:
    """An answer of the router: its status, and what `Retry-After` said."""

    status: int
    retry_after: str


async def limit(play: Play, name: str) -> Step:
    """The router runs two, lets four wait in order, and refuses the rest with 429 and `Retry-After`."""
    llm, failed = play.stage.llm, play.traffic.failed
    play.reporter.begin(f"POST /infer: {PLACES} run, {QUEUE} wait, the rest is refused", {}, play.traffic.count())
    order: list[int] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=_SECONDS, connector=connector) as session, _together() as asked:
        for number in range(PLACES + QUEUE):  # each is sent when the router has the one before
            asked.append(asyncio.create_task(_numbered(session, llm, number, order)))
            await until(lambda: _arrived(play, asked), f"the router to have {len(asked)} requests")
        asked += [asyncio.create_task(_infer(session, llm, "once more")) for _ in range(BURST)]
        answers = await asyncio.gather(*asked)
    peak = int((await play.stage.router_metrics())["xdserve_router_running_peak"])
    statuses = Counter(answer.status for answer in answers)
    told = sum(answer.status == 429 and answer.retry_after.isdigit() for answer in answers)
    in_order = _in_order(order)
    lost = play.traffic.failed - failed + statuses.total() - statuses[200] - statuses[429]
    places = PLACES + QUEUE
    return Step(
        name=name,
        expected=f"{PLACES} at once; the first {places} answered in order; beyond them 429 with Retry-After",
        seen=f"{peak} at once; {len(order)} answered {'in order' if in_order else f'as {order}'}; "
        f"{statuses[429]} of {BURST} more refused, {told} with Retry-After",
        held=peak == PLACES and len(order) == places and in_order and told == statuses[429] > 0 and lost == 0,
        requests=len(answers), failed=lost, wanted={}, counts={},
        figures={"order": order, "peak": peak, "refused": statuses[429], "answered": statuses[200]},
    )  # fmt: skip


async def _arrived(play: Play, tasks: Sequence[asyncio.Task[Any]]) -> bool:
    done = sum(task.done() for task in tasks)  # counted before: what ends meanwhile is in neither, and asked for again
    metrics = await play.stage.router_metrics()
    return done + metrics["xdserve_router_running"] + metrics["xdserve_router_queued"] >= len(tasks)


async def _numbered(session: aiohttp.ClientSession, gateway: Gateway, number: int, order: list[int]) -> Infer:
    answer = await _infer(session, gateway, f"question {number}")
    if answer.status == 200:
        order.append(number)
    return answer


def _in_order(order: Sequence[int]) -> bool:
    """Whether answers came as the questions did; those that run at the same time may change places."""
    return all(abs(place - number) < PLACES for place, number in enumerate(order))


async def _infer(session: aiohttp.ClientSession, gateway: Gateway, prompt: str) -> Infer:
    headers = {"host": gateway.host()}
    async with session.post(f"{gateway.url}/infer", json={"prompt": prompt}, headers=headers) as response:
        await response.read()
        return Infer(response.status, response.headers.get("Retry-After", ""))
