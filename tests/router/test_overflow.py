"""At most MAX_CONCURRENCY at once, the rest in order of arrival, 429 beyond; at any load, nothing lost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from tests.router.rig import HOST, Client, Model, cancelled
from tests.support.wait import wait_until

# Longer than any test: who runs is ended by its client.
FOREVER = "600000"


async def occupied(client, running, queued=0):
    """Requests that fill the places, then the queue, one by one; in order of arrival."""
    tasks = []
    for number in range(running + queued):
        tasks.append(asyncio.ensure_future(client.infer(str(number))))
        waiting = max(0, number + 1 - running)
        await client.until("queued" if waiting else "running", waiting or number + 1)
    return tasks


@pytest.mark.parametrize(
    ("variables", "queue", "error"),
    [
        ({"QUEUE_LIMIT": "2"}, 2, "too many requests: 2 run and 2 wait"),
        ({"QUEUE_LIMIT": "0"}, 0, "too many requests: 2 run"),
        ({"OVERFLOW": "reject"}, 0, "too many requests: 2 run"),
        ({"OVERFLOW": "reject", "QUEUE_LIMIT": "5"}, 0, "too many requests: 2 run"),
    ],
)
async def test_one_too_many_is_429_and_told_when_to_come_again(start, variables, queue, error):
    async with Client(start(MAX_CONCURRENCY="2", PROCESSING_MS=FOREVER, **variables)) as client:
        tasks = await occupied(client, 2, queue)
        status, answer, headers = await client.infer("one more")
        assert (status, answer, headers["Retry-After"]) == (429, {"error": error}, "1")
        assert await client.metric("refused_total", reason="queue") == 1
        await cancelled(*tasks)
        await client.until("running", 0)


async def test_who_leaves_the_queue_frees_his_place(start):
    async with Client(start(MAX_CONCURRENCY="1", QUEUE_LIMIT="1", PROCESSING_MS=FOREVER)) as client:
        first, second = await occupied(client, 1, 1)
        await cancelled(second)
        await client.until("queued", 0)
        third = asyncio.ensure_future(client.infer("third"))
        await client.until("queued", 1)
        await cancelled(first)
        await client.until("queued", 0)
        assert await client.metric("running") == 1
        await cancelled(third)
        await client.until("running", 0)
        assert await client.metric("requests_total", code="gone") == 3


async def test_requests_run_in_the_order_of_arrival(start):
    async with Model() as model, Client(start(MAX_CONCURRENCY="1", **model.variables)) as client:
        model.go.clear()
        tasks = await occupied(client, 1, 9)
        await cancelled(tasks.pop(4), tasks.pop(7))
        await client.until("queued", 7)
        model.go.set()
        await asyncio.gather(*tasks)
        assert model.prompts == ["0", "1", "2", "3", "5", "6", "7", "9"]


async def test_the_model_never_sees_more_at_once(start):
    async with Model() as model, Client(start(MAX_CONCURRENCY="5", **model.variables)) as client:
        model.go.clear()
        asking = asyncio.gather(*(client.infer(str(number)) for number in range(300)))
        await client.until("queued", 295)
        await wait_until(lambda: len(model.prompts) == 5)
        model.go.set()
        answers = await asking
        assert [answer["output"] for _, answer, _ in answers] == [str(number) for number in range(300)]
        assert model.peak == 5
        assert await client.metric("running_peak") == 5


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/m:predict", {"instances": [1]}),
        ("/v1/models/m:explain", {"instances": [1]}),
        ("/v2/models/m/infer", {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [1]}]}),
        ("/v1/completions", {"model": "m", "prompt": "a"}),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "a"}]}),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "a"}], "stream": True}),
    ],
)
async def test_all_ways_to_the_model_share_the_limit(start, path, body):
    async with Client(start(MAX_CONCURRENCY="1", OVERFLOW="reject", PROCESSING_MS=FOREVER)) as client:
        task = asyncio.ensure_future(client.ask("POST", path, json=body))
        await client.until("running", 1)
        assert (await client.infer("a"))[0] == 429
        status, answer, _ = await client.ask("POST", path, json=body)
        assert status == 429
        error = answer["error"]
        if "completions" in path:
            assert error["type"] == "rate_limit_error"
            error = error["message"]
        assert error == "too many requests: 1 run"
        await cancelled(task)
        await client.until("running", 0)


async def test_nothing_is_lost_where_many_leave(start):
    """Every second client hangs up, most of them while they wait; all others get their answer."""
    process = start(MAX_CONCURRENCY="3", PROCESSING_MS="2")

    async def one(number):
        reader, writer = await asyncio.open_connection(HOST, process.port)
        if number % 2:
            body = json.dumps({"prompt": "gone"}).encode()
            writer.write(b"POST /infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await asyncio.sleep(number % 7 / 1000)
        else:
            assert (await exchange(reader, writer, str(number)))[1]["prompt"] == str(number)
        writer.close()

    await asyncio.gather(*(one(number) for number in range(400)))
    async with Client(process) as client:
        for name in ("running", "queued", "held_bytes"):
            await client.until(name, 0)
        assert await client.metric("running_peak") == 3
        await asyncio.gather(*(client.infer("after") for _ in range(10)))


async def exchange(reader, writer, prompt):
    """One request over an open connection, with as little work as can be: the machine is the router's."""
    body = json.dumps({"prompt": prompt}).encode()
    writer.write(b"POST /infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), json.loads(await reader.readexactly(length))


async def test_ten_thousand_requests_of_two_hundred_clients(start):
    """Never more than MAX_CONCURRENCY at once, nothing lost, nothing mixed up, and nobody is passed over."""
    process = start(MAX_CONCURRENCY="10", PROCESSING_MS="1")
    order = []

    async def one(client):
        reader, writer = await asyncio.open_connection(HOST, process.port)
        for number in range(50):
            status, answer = await exchange(reader, writer, f"{client}/{number}")
            assert (status, answer["prompt"]) == (200, f"{client}/{number}")
            order.append(client)
        writer.close()

    await asyncio.gather(*(one(client) for client in range(200)))
    assert Counter(order) == dict.fromkeys(range(200), 50)
    # Between two answers to one client each other client gets one; twice of that leaves room for how sockets are read.
    last = {}
    for at, client in enumerate(order):
        assert at - last.get(client, at) <= 400
        last[client] = at
    async with Client(process) as client:
        assert await client.metric("running_peak") == 10
        assert await client.metric("queue_seconds_count") == 10_000
        assert (await client.metric("running"), await client.metric("queued")) == (0, 0)
        assert await client.metric("refused_total", reason="queue") == 0
        assert len(process.lines("request")) == 10_000
