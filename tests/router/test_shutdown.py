"""SIGTERM: nothing new, what was begun is finished, but not for ever."""

from __future__ import annotations

import asyncio
import signal

import aiohttp
import grpc.aio
import pytest

from tests.router.rig import HOST, Client, Model
from tests.router.test_protocols import call, infer_request
from tests.support.wait import wait_until


def terminate(process):
    process.child.process.send_signal(signal.SIGTERM)


async def ended(process):
    return await wait_until(lambda: process.child.running is False, seconds=20) and process.child.process.returncode


async def test_what_runs_and_what_waits_is_finished(start):
    async with Model() as model:
        model.go.clear()
        process = start(MAX_CONCURRENCY="1", **model.variables)
        async with Client(process) as client:
            tasks = [asyncio.ensure_future(client.infer("0"))]
            await client.until("running", 1)
            tasks += [asyncio.ensure_future(client.infer(str(number))) for number in range(1, 4)]
            await client.until("queued", 3)
            terminate(process)
            await wait_until(lambda: process.lines("stopping"))
            model.go.set()
            answers = await asyncio.gather(*tasks)
        assert [(status, answer["output"]) for status, answer, _ in answers] == [(200, str(n)) for n in range(4)]
        assert {headers["Connection"] for _, _, headers in answers} == {"close"}
        assert await ended(process) == 0
        assert process.lines("stopped")


async def test_nothing_new_is_accepted(start):
    async with Model() as model:
        model.go.clear()
        process = start(**model.variables)
        async with Client(process) as client:
            task = asyncio.ensure_future(client.infer("a"))
            await client.until("running", 1)
            terminate(process)
            await wait_until(lambda: process.lines("stopping"))

            async def refused():
                try:
                    (await asyncio.open_connection(HOST, process.port))[1].close()
                except ConnectionRefusedError:
                    return True

            await wait_until(refused)
            model.go.set()
            assert (await task)[0] == 200
        assert await ended(process) == 0


async def test_readyz_says_no_while_requests_are_still_taken(start):
    process = start(DRAIN_SECONDS="60")
    async with Client(process) as client:
        terminate(process)
        await wait_until(lambda: process.lines("stopping"))
        status, answer, headers = await client.ask("GET", "/readyz")
        assert (status, answer, headers["Connection"]) == (503, {"status": "stopping"}, "close")
        assert (await client.ask("GET", "/healthz"))[0] == 200
        assert (await client.infer("a"))[0] == 200
        terminate(process)
        assert await ended(process) == 0


async def test_a_stream_is_sent_to_its_end(start):
    process = start(PROCESSING_MS="50")
    async with Client(process) as client:
        body = {"model": "m", "prompt": "a b c d e f g h", "stream": True}
        async with client.session.post("/v1/completions", json=body) as response:
            terminate(process)
            assert (await response.text()).endswith("data: [DONE]\n\n")
    assert await ended(process) == 0


async def test_a_call_over_grpc_is_finished(start):
    process = start(PROCESSING_MS="300", GRPC_PORT="0")
    request = infer_request(contents={"int_contents": [1, 2]}).SerializeToString()
    async with Client(process) as client:
        task = asyncio.ensure_future(call(process, "ModelInfer", request))
        await client.until("running", 1)
    terminate(process)
    assert (await task)[0]
    assert await ended(process) == 0
    with pytest.raises(grpc.aio.AioRpcError):
        await call(process, "ServerLive")


@pytest.mark.parametrize("variables", [{"SHUTDOWN_SECONDS": "0.3"}, {"SHUTDOWN_SECONDS": "0"}, {"GRPC_PORT": "0"}])
async def test_what_takes_too_long_is_cut(start, variables):
    """Also by a second signal."""
    process = start(PROCESSING_MS="600000", **variables)
    async with Client(process) as client:
        task = asyncio.ensure_future(client.infer("a"))
        await client.until("running", 1)
        terminate(process)
        await wait_until(lambda: process.lines("stopping"))
        if "SHUTDOWN_SECONDS" not in variables:
            terminate(process)
        with pytest.raises(aiohttp.ClientError):
            await task
    assert await ended(process) == 0
    assert process.lines("requests cut: they were not finished in time")


async def test_quiet_connections_do_not_delay_the_end(start):
    process = start()
    async with Client(process) as client:
        await client.infer("a")
        terminate(process)
        assert await ended(process) == 0
