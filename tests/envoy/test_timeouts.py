"""Timeouts cut a silent model and a request that never ends, each at its time, and nothing that has more time."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial

import grpc.aio
import pytest

from tests.support.documents import backend, endpoints, entrance, isvc, policy, service
from tests.support.plane import HOST, serving
from tests.support.requests import http1_bytes
from tests.support.stubs import OK, EventStream, Streamer, stub_server

KIB, MIB = 1 << 10, 1 << 20
SIZES = (KIB, MIB)
OF_ALL_SIZES = pytest.mark.parametrize("size", SIZES)
CHAT = "/tests.Model/Chat"


# -- As Envoy has them -----------------------------------------------------------------------------------------------


async def limits(gateway):
    """Request and idle timeout of the routes that send to backends, by host and name."""
    (entry,) = await gateway.dump("dynamic_route_configs")
    return {
        f"{host['name']}/{route['name']}": (route["route"]["timeout"], route["route"]["idle_timeout"])
        for host in entry["route_config"]["virtual_hosts"]
        for route in host["routes"]
        if "route" in route
    }


def rule(name="own", **timeouts):
    return {"name": name, "matches": [{"path": {"value": f"/{name}"}}], "timeouts": timeouts}


async def test_the_default_idle_timeout_never_cuts_a_longer_request_timeout(tmp_path, model_servers):
    async with serving(tmp_path, isvc(), backend("iris-predictor", model_servers["stable"].port), entrance) as gateway:
        for component, said, expected in (
            (None, {}, ("0s", "300s")),
            (20, {}, ("20s", "300s")),
            (300, {}, ("300s", "300s")),
            (301, {}, ("301s", "301s")),
            (400, {}, ("400s", "400s")),
            (None, {"request": "400s"}, ("400s", "400s")),
            (None, {"request": "5m1ms"}, ("300.001s", "300.001s")),
            (None, {"request": "24h"}, ("86400s", "86400s")),
            (None, {"request": "20s"}, ("20s", "300s")),
            (None, {"request": "0s"}, ("0s", "300s")),
            (400, {"request": "30s"}, ("30s", "300s")),
            (400, {"request": "0s"}, ("0s", "300s")),
            (400, {"request": "500s"}, ("500s", "500s")),
        ):
            target = isvc(predictor={} if component is None else {"timeout": component})
            await gateway.edit(target, policy(timeouts=said))
            found = await limits(gateway)
            assert found == dict.fromkeys(["main/default", "predictor/predictor"], expected), (component, said)


async def test_an_idle_timeout_that_somebody_wrote_is_kept(tmp_path, model_servers):
    async with serving(tmp_path, isvc(), backend("iris-predictor", model_servers["stable"].port), entrance) as gateway:
        for component, said, expected in (
            (None, {"request": "20s", "idle": "2s"}, ("20s", "2s")),
            (None, {"request": "400s", "idle": "2s"}, ("400s", "2s")),
            (None, {"request": "400s", "idle": "300s"}, ("400s", "300s")),
            (None, {"request": "400s", "idle": "0s"}, ("400s", "0s")),
            (None, {"idle": "10m"}, ("0s", "600s")),
            (400, {"idle": "2s"}, ("400s", "2s")),
            (400, {"request": "0s", "idle": "1ms"}, ("0s", "0.001s")),
        ):
            target = isvc(predictor={} if component is None else {"timeout": component})
            await gateway.edit(target, policy(timeouts=said))
            found = await limits(gateway)
            assert found == dict.fromkeys(["main/default", "predictor/predictor"], expected), (component, said)


async def test_what_a_rule_says_of_time_counts_before_what_the_policy_says(tmp_path, model_servers):
    async with serving(tmp_path, isvc(), backend("iris-predictor", model_servers["stable"].port), entrance) as gateway:
        for policys, rules, default, own in (
            ({"request": "20s"}, {"request": "400s"}, ("20s", "300s"), ("400s", "400s")),
            ({"request": "400s"}, {"request": "20s"}, ("400s", "400s"), ("20s", "300s")),
            ({"request": "400s"}, {"request": "0s"}, ("400s", "400s"), ("0s", "300s")),
            ({"request": "400s"}, {"idle": "3s"}, ("400s", "400s"), ("400s", "3s")),
            ({"idle": "2s"}, {"request": "400s"}, ("0s", "2s"), ("400s", "2s")),
            ({"idle": "2s"}, {"idle": "0s", "request": "400s"}, ("0s", "2s"), ("400s", "0s")),
            ({"idle": "2s"}, {"idle": "3s"}, ("0s", "2s"), ("0s", "3s")),
            ({}, {"request": "400s"}, ("0s", "300s"), ("400s", "400s")),
        ):
            await gateway.edit(policy(timeouts=policys, rules=[rule(**rules)]))
            expected = {"main/own": own, "main/default": default, "predictor/predictor": default}
            assert await limits(gateway) == expected, (policys, rules)


async def test_each_component_has_the_time_that_it_says(tmp_path, model_servers):
    times = {"predictor": 400, "transformer": 500, "explainer": 600}
    models = [one for name in times for one in backend(f"iris-{name}", model_servers["stable"].port)]
    target = isvc(**{name: {"timeout": time} for name, time in times.items()})
    async with serving(tmp_path, target, models, entrance) as gateway:
        found = {name: time for name, (time, idle) in (await limits(gateway)).items() if time == idle}
        components = {f"{name}/{name}": f"{time}s" for name, time in times.items()}
        assert found == components | {"main/explain": "600s", "main/default": "500s"}


async def test_calls_of_grpc_have_the_same_time(tmp_path, model_servers):
    port = model_servers["stable"].port
    made = [service("iris-predictor", http=80, grpc_port=9000)]
    made += [
        endpoints("iris-predictor", port, number=n, port_name=name) for n, name in enumerate(["http", "grpc-port"])
    ]
    async with serving(tmp_path, isvc(predictor={"timeout": 400}), made, entrance) as gateway:
        routes = [f"{name}{kind}" for name in ("main/default", "predictor/predictor") for kind in ("", "-grpc")]
        assert await limits(gateway) == dict.fromkeys(routes, ("400s", "400s"))


# -- A model that is silent ------------------------------------------------------------------------------------------


def reason(reply):
    """Status and reason of an answer of the gateway itself."""
    assert reply.header("content-type") == "application/json"
    error = json.loads(reply.body)["error"]
    assert error["code"] == reply.status
    return reply.status, error["reason"]


@asynccontextmanager
async def silent(tmp_path, *rules, **timeouts):
    """A gateway in front of a model that answers when it is let, and what lets it."""
    answer = asyncio.Event()

    async def wait(_, writer):
        await answer.wait()
        writer.write(OK)

    async with stub_server(wait) as port:
        made = policy(timeouts=timeouts, rules=list(rules))
        async with serving(tmp_path, isvc(), backend("iris-predictor", port), made, entrance) as gateway:
            yield gateway, answer


async def reasons(gateway, path="/", sizes=SIZES):
    """The answers of the gateway to requests with bodies of all sizes."""
    asked = (gateway.ask(path, method="POST", body=bytes(size)) for size in sizes)
    return {reason(reply) for reply in await asyncio.gather(*asked)}


async def test_a_model_that_is_silent_for_longer_than_somebody_wrote_is_cut(tmp_path):
    said = {
        "a": ({"idle": "300ms"}, "IdleTimeout"),
        "b": ({"idle": "300ms", "request": "20s"}, "IdleTimeout"),
        "c": ({"request": "300ms"}, "RequestTimeout"),
        "d": ({"idle": "20s", "request": "300ms"}, "RequestTimeout"),
        "e": ({"idle": "0s", "request": "300ms"}, "RequestTimeout"),
    }
    rules = [rule(name, **timeouts) for name, (timeouts, _) in said.items()]
    async with silent(tmp_path, *rules) as (gateway, _):
        found = await asyncio.gather(*(reasons(gateway, f"/{name}") for name in said))
        assert dict(zip(said, found, strict=True)) == {name: {(504, why)} for name, (_, why) in said.items()}


async def test_a_model_that_is_silent_for_longer_than_the_default_has_its_whole_time(tmp_path, monkeypatch):
    """The default is made as short as the timeout of a rule, whose 504 shows that the time is over."""
    monkeypatch.setattr("translator.planners.policy.IDLE_TIMEOUT", 300)
    async with silent(tmp_path, rule(idle="300ms"), request="30s") as (gateway, answer):
        asked = [asyncio.create_task(gateway.ask(method="POST", body=bytes(size))) for size in SIZES]
        assert await reasons(gateway, "/own") == {(504, "IdleTimeout")}
        answer.set()
        assert [(await reply).status for reply in asked] == [200, 200]


async def test_an_answer_that_stops_is_cut_without_a_word(tmp_path):
    async def half(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")

    async with stub_server(half) as port:
        made = policy(timeouts={"idle": "300ms"})
        async with serving(tmp_path, isvc(), backend("iris-predictor", port), made, entrance) as gateway:
            with pytest.raises(asyncio.IncompleteReadError) as cut:
                await gateway.ask()
            assert cut.value.partial == b"half"


# -- A request that does not end -------------------------------------------------------------------------------------


def unfinished(size, path="/echo", missing=500):
    """A request without the last bytes of its body."""
    head = f"POST {path} HTTP/1.1\r\nhost: iris.models\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + bytes(size - missing)


async def test_a_client_that_stops_sending_is_told_so(tmp_path):
    async with silent(tmp_path, idle="300ms") as (gateway, _):
        for size in SIZES:
            assert reason(await http1_bytes(gateway.port, unfinished(size))) == (408, "IdleTimeout")


@asynccontextmanager
async def hurried(tmp_path, *models):
    """A gateway where a request must be whole after half a second."""
    opened = partial(entrance, edge={"requestTimeout": "500ms"})
    async with serving(tmp_path, isvc(), *models, opened) as gateway:
        yield gateway


async def dripped(port, request):
    """The first line and the body of what is answered while a request goes on, byte by byte."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    reading = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    async with asyncio.timeout(20):
        while not (await asyncio.wait({reading}, timeout=0.05))[0]:
            writer.write(b"x")
        head = (await reading).decode()
        body = json.loads(await reader.readuntil(b"\n"))
    writer.close()
    return head.partition("\r\n")[0], body["error"]["reason"]


async def test_a_request_that_drips_is_cut(tmp_path):
    async def never(head, _):
        raise AssertionError(head)

    async with stub_server(never) as port, hurried(tmp_path, backend("iris-predictor", port)) as gateway:
        for size in SIZES:
            found = await dripped(gateway.port, unfinished(size))
            assert found == ("HTTP/1.1 408 Request Timeout", "RequestIncomplete")


async def time_over(gateway):
    """Wait until the time for a request is over for all that began before: for one that begins now, it is."""
    assert reason(await http1_bytes(gateway.port, unfinished(KIB))) == (408, "RequestIncomplete")


@OF_ALL_SIZES
async def test_an_answer_that_streams_for_longer_arrives_whole(tmp_path, size):
    streamer = Streamer()
    async with (
        stub_server(streamer.handle) as port,
        hurried(tmp_path, backend("iris-predictor", port)) as gateway,
    ):
        reader, writer = await asyncio.open_connection(HOST, gateway.port)
        writer.write(unfinished(size, missing=0))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        stream = EventStream(reader, writer)
        await time_over(gateway)
        streamer.send("late")
        assert await stream.event() == "late"
        streamer.finish()
        assert await stream.event() == ""
        stream.close()


async def test_a_model_that_thinks_for_longer_is_not_cut(tmp_path):
    answer = asyncio.Event()

    async def think(_, writer):
        await answer.wait()
        writer.write(OK)

    async with stub_server(think) as port, hurried(tmp_path, backend("iris-predictor", port)) as gateway:
        asked = [asyncio.create_task(gateway.ask(method="POST", body=bytes(size))) for size in SIZES]
        await time_over(gateway)
        answer.set()
        assert [(await reply).status for reply in asked] == [200, 200]


@OF_ALL_SIZES
async def test_a_request_whose_answer_has_begun_is_not_cut(tmp_path, size):
    """A model that answers while it reads, as one that transcribes speech."""

    async def eager(reader, writer):
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST /eager "):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        await reader.readexactly(size)
        writer.write(b"done")
        writer.close()

    async with await asyncio.start_server(eager, HOST, 0) as server:
        models = backend("iris-predictor", server.sockets[0].getsockname()[1])
        async with hurried(tmp_path, models) as gateway, asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(HOST, gateway.port)
            writer.write(unfinished(size, "/eager"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await time_over(gateway)
            writer.write(bytes(500))
            assert await reader.readexactly(4) == b"done"
            writer.close()


# -- The same over gRPC ----------------------------------------------------------------------------------------------


class Chat:
    """A model that says what it is told."""

    def service(self, _):
        async def answer(requests, __):
            async for request in requests:
                yield request

        return grpc.stream_stream_rpc_method_handler(answer)


@asynccontextmanager
async def chat(tmp_path):
    """A hurried gateway in front of such a model, and a channel to it."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Chat(),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    models = [service("iris-predictor", h2c=80), endpoints("iris-predictor", port, port_name="h2c")]
    async with hurried(tmp_path, *models) as gateway, grpc.aio.insecure_channel(f"{HOST}:{gateway.port}") as channel:
        yield channel
    await server.stop(None)


@OF_ALL_SIZES
async def test_a_call_whose_answer_has_begun_goes_on_and_one_without_an_answer_is_cut(tmp_path, size):
    async with chat(tmp_path) as channel:
        call = channel.stream_stream(CHAT)(timeout=20)
        await call.write(bytes(size))
        assert await call.read() == bytes(size)
        waiting = channel.stream_stream(CHAT)(timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await waiting.read()
        assert cut.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert cut.value.details().startswith("RequestIncomplete: ")
        await call.write(b"late")
        assert await call.read() == b"late"
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
