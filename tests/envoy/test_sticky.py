"""Whoever met a backend meets it again, and a change of weights moves as few as it can."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from functools import partial

import pytest
import pytest_asyncio

from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.plane import serving
from xdserve.demo.driver import connect, post
from xdserve.demo.statistics import agrees, interval

USERS = 400
HOST = "iris-models.example.com"
COOKIE = {"by": "Cookie", "name": "xdserve", "ttl": "1h"}
HEADER = {"by": "Header", "name": "x-user-id"}


def canary(sticky, stable, v2):
    backends = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
    return policy(backends=backends, split=split(stable=stable, v2=v2), sticky=sticky)


@pytest_asyncio.fixture
async def scene(tmp_path, model_servers):
    """Starts a gateway in front of both models, split 90 to 10 with the given stickiness."""

    @asynccontextmanager
    async def start(sticky, **how):
        stable, v2 = model_servers["stable"], model_servers["v2"]
        models = [*backend("iris-predictor", stable.port), *backend("iris-v2-predictor", v2.port)]
        async with serving(tmp_path, isvc(), models, entrance, canary(sticky, 90, 10), **how) as started:
            yield started

    return start


async def ask_all(port, requests, connections=8):
    """The answers to all requests, in order, over some keep-alive connections."""
    answers, queue = [None] * len(requests), list(enumerate(requests))

    async def work():
        connection = await connect("127.0.0.1", port)
        while queue:
            at, headers = queue.pop()
            answers[at] = await connection.ask(post(HOST, "/v1/models/iris:predict", b'{"instances": [1]}', headers))
        connection.close()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(work())
    assert {answer.status for answer in answers} == {200}
    return answers


async def meet(port, headers):
    """Which variant answers each of these requests."""
    return [answer.variant for answer in await ask_all(port, headers)]


def with_cookie(answer):
    return {"cookie": answer.cookie.partition(";")[0]}


def moved_to_v2(before, after):
    """How many users changed from stable to v2, if nobody went the other way."""
    assert all(now == "v2" for was, now in zip(before, after, strict=True) if was == "v2")
    return sum(was != now for was, now in zip(before, after, strict=True))


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_each_new_user_meets_the_backend_of_the_first_answer_again(scene, concurrency):
    async with scene(COOKIE, concurrency=concurrency) as gateway:
        first = await ask_all(gateway.port, [{}] * USERS)
        known = [with_cookie(answer) for answer in first]
        assert len({cookie["cookie"] for cookie in known}) == USERS
        before = [answer.variant for answer in first]
        assert agrees({"stable": 0.9, "v2": 0.1}, {name: before.count(name) for name in ("stable", "v2")})
        again = await ask_all(gateway.port, known)
        assert [answer.variant for answer in again] == before
        assert {answer.cookie for answer in again} == {""}
        beside = [{"cookie": f"a=1; {cookie['cookie']}; b=2"} for cookie in known]
        assert await meet(gateway.port, beside) == before


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_an_edit_moves_only_the_share_that_must_move(scene, concurrency):
    async with scene(COOKIE, concurrency=concurrency) as gateway:
        first = await ask_all(gateway.port, [{}] * 1200)
        known, before = [with_cookie(answer) for answer in first], [answer.variant for answer in first]
        await gateway.edit(canary(COOKIE, 80, 20))
        moved = moved_to_v2(before, await meet(gateway.port, known))
        low, high = interval(moved, before.count("stable"))
        assert low <= 1 / 9 <= high
        await gateway.edit(canary(COOKIE, 9, 1))  # the first proportion, written in another way
        assert await meet(gateway.port, known) == before


async def test_the_cookie_says_how_long_where_and_to_whom(scene):
    async with scene(COOKIE) as gateway:
        value, *attributes = (await gateway.ask()).header("set-cookie").split("; ")
        assert re.fullmatch(r"xdserve=[0-9a-f-]{36}", value)
        assert sorted(attributes) == ["HttpOnly", "Max-Age=3600", "Path=/"]
        await gateway.edit(canary({"by": "Cookie", "name": "mine"}, 90, 10))
        value, *attributes = (await gateway.ask()).header("set-cookie").split("; ")
        assert value.startswith("mine=")
        assert sorted(attributes) == ["HttpOnly", "Path=/"]


async def test_a_request_id_of_the_clients_choice_does_not_choose_the_backend(scene):
    async with scene(COOKIE) as gateway:
        answers = await ask_all(gateway.port, [{"x-request-id": "mine"}] * 200)
        assert len({answer.cookie for answer in answers}) == 200


async def test_an_empty_cookie_is_none(scene):
    async with scene(COOKIE) as gateway:
        assert (await gateway.ask(headers=[("cookie", "xdserve=")])).header("set-cookie")


async def test_the_same_header_meets_the_same_backend(scene):
    async with scene(HEADER, concurrency=2) as gateway:
        users = [{"x-user-id": f"user-{number}"} for number in range(1200)]
        before = await meet(gateway.port, users)
        assert agrees({"stable": 0.9, "v2": 0.1}, {name: before.count(name) for name in ("stable", "v2")})
        assert await meet(gateway.port, users) == before
        await gateway.edit(canary(HEADER, 80, 20))
        moved = moved_to_v2(before, await meet(gateway.port, users))
        low, high = interval(moved, before.count("stable"))
        assert low <= 1 / 9 <= high


async def test_without_its_header_a_request_is_split_by_weight(scene):
    async with scene(HEADER) as gateway:
        anonymous = await meet(gateway.port, [{}] * 1000)
        assert agrees({"stable": 0.9, "v2": 0.1}, {name: anonymous.count(name) for name in ("stable", "v2")})


async def test_weights_alone_are_not_sticky(scene):
    async with scene(None) as gateway:
        ask = partial(meet, gateway.port)
        answers = await ask([{"cookie": "xdserve=one"}] * 1000)
        assert agrees({"stable": 0.9, "v2": 0.1}, {name: answers.count(name) for name in ("stable", "v2")})
        assert (await gateway.ask()).header("set-cookie") is None
