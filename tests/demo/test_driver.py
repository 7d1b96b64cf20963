"""The driver counts every answer once, tells failures from answers, and measures when the first came."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from tests.support.models import model_server
from tests.support.processes import free_ports
from xdserve.demo.driver import LostError, Tally, Traffic, connect, post

HOST = "127.0.0.1"
PREDICT = post("iris", "/v1/models/iris:predict", b'{"instances": [[1, 2]]}')
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Variant: v1\r\nSet-Cookie: xdserve=abc; Path=/\r\n\r\n{}"


@asynccontextmanager
async def scripted(*answers):
    """A server that gives these bytes, one for each request, and then closes."""

    async def talk(reader, writer):
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            for part in answer if isinstance(answer, list) else [answer]:
                writer.write(part)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connected(*answers):
    async with scripted(*answers) as port:
        connection = await connect(HOST, port)
        try:
            yield connection
        finally:
            connection.close()


async def test_counts_by_variant_and_status():
    async with model_server("stable") as server:
        async with Traffic(HOST, server.port, PREDICT, connections=3).running() as traffic:
            tally = traffic.count()
            await traffic.until(tally, requests=300)
        assert tally.variants == {"stable": tally.total}
        assert tally.statuses == {200: tally.total}
        assert (tally.failed, traffic.failed, tally.shares()) == (0, 0, {"stable": 1.0})
        assert server.requests >= tally.total >= 300


async def test_an_error_is_a_failure_and_no_share():
    async with model_server("stable") as server:
        bad = post("iris", "/v1/models/iris:predict", b"{}")
        async with Traffic(HOST, server.port, bad, connections=1).running() as traffic:
            tally = traffic.count()
            await traffic.until(tally, requests=5)
    assert tally.failed == tally.total == tally.statuses[400]
    assert tally.shares() == {}


async def test_nobody_listening_is_a_failure():
    async with Traffic(HOST, free_ports(1)[0], PREDICT, connections=1).running() as traffic:
        tally = traffic.count()
        await traffic.until(tally, requests=2)
    assert tally.lost == tally.failed >= 2


async def test_a_new_tally_has_only_what_is_sent_after_it():
    async with model_server("stable") as server:
        async with Traffic(HOST, server.port, PREDICT).running() as traffic:
            first = traffic.count()
            await traffic.until(first, requests=50)
            second = traffic.count()
            await traffic.until(second, requests=50)
        assert server.requests >= first.total + second.total


async def test_says_when_the_first_answer_of_a_variant_came():
    async with model_server("v2") as server, Traffic(HOST, server.port, PREDICT).running() as traffic:
        before = time.perf_counter()
        at = await asyncio.wait_for(traffic.expect("v2"), 10)
        assert before < at <= time.perf_counter()


async def test_waiting_for_more_than_comes_ends():
    async with model_server("v2") as server, Traffic(HOST, server.port, PREDICT, pause=60).running() as traffic:
        with pytest.raises(TimeoutError):
            await traffic.until(traffic.count(), requests=1000, deadline=0.05)


async def test_reads_variant_and_cookie_whatever_the_case_of_the_names():
    async with connected(OK) as connection:
        answer = await connection.ask(PREDICT)
    assert answer[:3] == (200, "v1", "xdserve=abc; Path=/")


async def test_an_answer_may_come_in_pieces():
    async with connected([OK[:20], OK[20:60], OK[60:-1], OK[-1:]], OK) as connection:
        assert (await connection.ask(PREDICT)).status == 200
        assert (await connection.ask(PREDICT)).status == 200


async def test_a_connection_that_is_to_close_is_not_used_again():
    async with connected(OK.replace(b"Content-Length", b"Connection: close\r\nContent-Length")) as connection:
        assert (await connection.ask(PREDICT)).status == 200
        assert not connection.open
        with pytest.raises(LostError, match="closed"):
            await connection.ask(PREDICT)


@pytest.mark.parametrize("answer", [b"", OK[:20], OK[:-1], b"nonsense\r\n\r\n", OK.replace(b"2\r\n", b"x\r\n")])
async def test_half_an_answer_or_none_is_lost(answer):
    async with connected(answer) as connection:
        with pytest.raises(LostError):
            await connection.ask(PREDICT)


def test_an_empty_tally_has_nothing():
    assert (Tally().total, Tally().failed, Tally().shares()) == (0, 0, {})
