"""The answers that a gateway gives itself: each in the form that its client reads, and none tells of the inside."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import grpc.aio
import pytest
import pytest_asyncio

from tests.support.documents import backend, endpoints, entrance, isvc, policy, service, split, to_service
from tests.support.plane import HOST, serving
from tests.support.requests import http1_bytes, http2
from tests.support.stubs import stub_server
from translator.envoy.local_replies import LOCAL_REPLIES
from translator.planners.options import Options

KIB, MIB = 1 << 10, 1 << 20
SIZES = (0, KIB, MIB)
CHAT = "/v1/chat/completions"
PREDICT = "/v1/models/iris:predict"


# -- Backends that fail ----------------------------------------------------------------------------------------------


async def silent(*_):
    await asyncio.Event().wait()


def answering(answer, goes_on=None):
    async def handle(_, writer):
        writer.write(answer)
        return goes_on

    return handle


HANDLERS = {
    "silent": silent,
    "breaking": answering(b"", goes_on=False),
    "garbage": answering(b"neither HTTP/1 nor HTTP/2, and longer than a frame\r\n\r\n"),
    "many": answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + b"x-one: 1\r\n" * 101 + b"\r\n"),
    "twofold": answering(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc"),
}

FAILURES = {
    "silent": (504, "RequestTimeout", None),
    "idle": (504, "IdleTimeout", None),
    "garbage": (502, "BackendProtocolError", None),
    "many": (502, "BackendProtocolError", None),
    "twofold": (502, "BackendProtocolError", None),
    "breaking": (503, "BackendFailed", "5"),
    "refusing": (503, "BackendFailed", "5"),
    "empty": (503, "BackendFailed", "5"),
    "none": (503, "NoBackendReady", "5"),
}
"""The answers to requests with this `x-case`: status, reason, Retry-After."""

CALLS = {
    "silent": ("DEADLINE_EXCEEDED", "RequestTimeout", None),
    "idle": ("DEADLINE_EXCEEDED", "IdleTimeout", None),
    "garbage": ("UNAVAILABLE", "BackendProtocolError", None),
    "breaking": ("UNAVAILABLE", "BackendFailed", "5"),
    "refusing": ("UNAVAILABLE", "BackendFailed", "5"),
    "empty": ("UNAVAILABLE", "BackendFailed", "5"),
    "none": ("UNAVAILABLE", "NoBackendReady", "5"),
}
"""The same of gRPC."""


def rule(case, name, **more):
    """Requests of a case go to a backend."""
    match = {"headers": [{"name": "x-case", "value": case}]}
    return {"name": case, "matches": [match], "split": split(**{name: 1}), **more}


def documents(ports):
    """Each port as a backend for HTTP and as one for gRPC, and a rule for each case; the rest meets silence."""
    made, backends, rules = [], [], []
    for kind, port_name in (("", "http"), ("grpc-", "h2c")):
        for name, port in ports.items():
            made += [service(f"{kind}{name}", **{port_name: 80})]
            made += [endpoints(f"{kind}{name}", port, port_name=port_name)] if port else []
            backends.append(to_service(f"{kind}{name}", f"{kind}{name}", whenUnready="Fail"))
            rules.append(
                rule(f"{kind}{name}", f"{kind}{name}", timeouts={"request": "300ms"} if name == "silent" else {})
            )
        rules.append(rule(f"{kind}idle", f"{kind}silent", timeouts={"idle": "300ms"}))
        rules.append(rule(f"{kind}none", f"{kind}silent", split=[{"backend": f"{kind}silent", "weight": 0}]))
    rules.append({"name": "by-path", "matches": [{"path": {"value": "/other"}}]})
    buffer = {"maxRequestBytes": "2Mi"}
    return [*made, policy(backends=backends, rules=rules, split=split(silent=1), buffer=buffer), isvc()]


@pytest_asyncio.fixture
async def scene(tmp_path):
    """Starts a gateway in front of backends that fail, each in its way."""

    @asynccontextmanager
    async def start(**how):
        async with AsyncExitStack() as stack:
            ports = {name: await stack.enter_async_context(stub_server(each)) for name, each in HANDLERS.items()}
            held = stack.enter_context(socket.socket())
            held.bind((HOST, 0))
            made = documents(ports | {"refusing": held.getsockname()[1], "empty": None})
            opened = partial(entrance, edge={"requestTimeout": "500ms", "http10": "Reject"})
            yield await stack.enter_async_context(serving(tmp_path, made, opened, **how))

    return start


# -- Forms -----------------------------------------------------------------------------------------------------------


def in_json(reply):
    """Status, reason and Retry-After of an answer in the gateway's own form."""
    assert reply.header("content-type") == "application/json"
    (error,) = json.loads(reply.body).values()
    assert set(error) == {"code", "reason", "message"}
    assert error["code"] == reply.status
    return reply.status, error["reason"], reply.header("retry-after")


def in_openais(reply):
    """The same of one in OpenAI's shape."""
    assert reply.header("content-type") == "application/json"
    (error,) = json.loads(reply.body).values()
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] is None
    assert error["type"] == ("server_error" if reply.status >= 500 else "invalid_request_error")
    return reply.status, error["code"], reply.header("retry-after")


async def ask_all(gateway, path, size, cases=FAILURES):
    """The answers to requests of all cases, asked at once."""
    ask = partial(gateway.ask, path, method="POST", body=bytes(size))
    replies = await asyncio.gather(*(ask(headers=[("x-case", case)]) for case in cases))
    return dict(zip(cases, replies, strict=True))


@pytest.mark.parametrize("size", SIZES)
async def test_each_failure_of_a_backend_has_its_answer_in_json_and_in_openais_shape(scene, size):
    async with scene() as gateway:
        for path, form in ((PREDICT, in_json), (f"{CHAT}?a=b", in_openais)):
            found = await ask_all(gateway, path, size)
            assert {case: form(reply) for case, reply in found.items()} == FAILURES


OPENAIS = [
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/models", "/v1/models?limit=2",
    "/v1/chat/completions/some-id", "/v1/responses/some-id/cancel?x=/y", "/openai/v1/chat/completions",
    "/openai/v1/models", "/openai/v1/embeddings?x", "/v1/chat/completion%73", "//v1//./completions",
]  # fmt: skip
OTHERS = [
    "/", "/v1", "/v1/models/iris", "/v1/models/", "/openai/v1/models/iris", "/v1/completionsx", "/v2/chat/completions",
    "/x/v1/completions", "/v1/chat", "/V1/completions", "/x?y=/v1/models", "/v1/models:predict", "/v2/models/iris",
]  # fmt: skip


@pytest.mark.parametrize("case", ["breaking", "none"])
async def test_which_paths_are_openais(scene, case):
    async with scene() as gateway:
        for paths, form in ((OPENAIS, in_openais), (OTHERS, in_json)):
            for path in paths:
                assert form(await gateway.ask(path, headers=[("x-case", case)])) == FAILURES[case], path


# -- What the edge refuses -------------------------------------------------------------------------------------------

REFUSED_WITH_A_PATH = {
    "two hosts": (["GET PATH HTTP/1.1", "host: a", "host: b"], (400, "BadHost", None)),
    "one header of two hosts": (["GET PATH HTTP/1.1", "host: a,b"], (400, "BadHost", None)),
    "user information": (["GET PATH HTTP/1.1", "host: user@a"], (400, "BadHost", None)),
    "no host": (["GET PATH HTTP/1.1"], (400, "BadRequest", None)),
    "upgrade": (["GET PATH HTTP/1.1", "host: a", "connection: upgrade", "upgrade: x"], (403, "UpgradeRefused", None)),
    "TRACE": (["TRACE PATH HTTP/1.1", "host: a"], (405, "MethodNotAllowed", None)),
    "control character": (["GET PATH/%0A HTTP/1.1", "host: a"], (400, "BadPath", None)),
    "unfinished": (["POST PATH HTTP/1.1", "host: a", "content-length: 9"], (408, "RequestIncomplete", None)),
}
REFUSED_WITHOUT = {
    "underscore": (["GET PATH HTTP/1.1", "host: a", "x_y: 1"], (400, "UnderscoreInHeader", None)),
    "no HTTP": (["PATH"], (400, "BadRequest", None)),
    "unknown method": (["FETCH PATH HTTP/1.1", "host: a"], (400, "BadRequest", None)),
    "no path": (["GET path HTTP/1.1", "host: a"], (400, "BadRequest", None)),
    "NUL": (["GET PATH HTTP/1.1", "host: a", "x-y: a\0b"], (400, "BadRequest", None)),
    "CONNECT": (["CONNECT a:80 HTTP/1.1", "host: a:80"], (404, "NotFound", None)),
    "HTTP/1.0": (["GET PATH HTTP/1.0"], (426, "UpgradeRequired", None)),
    "large headers": (["GET PATH HTTP/1.1", "host: a", f"x: {'y' * 70_000}"], (431, "HeadersTooLarge", None)),
    "many headers": (["GET PATH HTTP/1.1", "host: a", *["x: y"] * 120], (431, "HeadersTooLarge", None)),
}
"""Envoy has no path yet when it refuses these, so they have the gateway's own form everywhere."""


async def send(gateway, lines, path):
    return await http1_bytes(gateway.port, "\r\n".join([*lines, "", ""]).replace("PATH", path).encode())


async def test_what_the_edge_refuses_is_answered_in_json_and_in_openais_shape(scene):
    async with scene() as gateway:
        for refused, path, form in (
            (REFUSED_WITH_A_PATH, PREDICT, in_json),
            (REFUSED_WITH_A_PATH, CHAT, in_openais),
            (REFUSED_WITHOUT, PREDICT, in_json),
            (REFUSED_WITHOUT, CHAT, in_json),
        ):
            found = {case: form(await send(gateway, lines, path)) for case, (lines, _) in refused.items()}
            assert found == {case: expected for case, (_, expected) in refused.items()}


async def test_the_same_over_http2(scene):
    async with scene() as gateway:
        for path, word in ((PREDICT, "reason"), (CHAT, "code")):
            for how, expected in (
                ({"method": "TRACE"}, (405, "MethodNotAllowed")),
                ({"method": "post"}, (405, "MethodNotAllowed")),
                ({"authority": "a,b"}, (400, "BadHost")),
                ({"headers": [("x-case", "breaking")]}, (503, "BackendFailed")),
            ):
                reply = await http2(gateway.port, path, **how)
                assert (reply.status, json.loads(reply.body)["error"][word]) == expected


async def exceeded(gateway, path):
    """A 507, which comes when more than the limit arrives between two tries; else it is a 503, or a reset."""
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError, EOFError):
                how = {"body": bytes(5 * MIB), "headers": [("x-case", "refusing")]}
                if (reply := await gateway.ask(path, method="POST", **how)).status == 507:
                    return reply


async def test_a_body_that_is_too_large_to_be_sent_again(scene):
    async with scene() as gateway:
        assert in_json(await exceeded(gateway, PREDICT)) == (507, "BodyTooLargeToRetry", "5")
        assert in_openais(await exceeded(gateway, CHAT)) == (507, "BodyTooLargeToRetry", "5")
        found = {await called(gateway, "grpc-refusing", bytes(5 * MIB)) for _ in range(10)}
        assert ("UNAVAILABLE", "BodyTooLargeToRetry", "5") in found


def test_every_answer_is_tried_that_can_be_had():
    refused = [expected for _, expected in (REFUSED_WITH_A_PATH | REFUSED_WITHOUT).values()]
    tried = {reason for _, reason, _ in (*FAILURES.values(), *refused)} | {"BodyTooLargeToRetry"}
    assert {reply.reason for reply in LOCAL_REPLIES} - tried == {"Overloaded", "RequestTooLarge", "TooManyRequests"}


# -- gRPC ------------------------------------------------------------------------------------------------------------


async def failed_call(gateway, case, body=b""):
    """The error of a unary call."""
    async with grpc.aio.insecure_channel(f"{HOST}:{gateway.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/tests.Model/Ask")(body, metadata=[("x-case", case)], timeout=10)
    return failed.value


async def called(gateway, case, body=b""):
    """Status, reason and Retry-After of a call; its message is one for people."""
    error = await failed_call(gateway, case, body)
    reason, colon, message = error.details().partition(": ")
    assert colon
    assert re.fullmatch(r"[A-Za-z0-9 ,]+", message), message
    return error.code().name, reason, dict(error.trailing_metadata()).get("retry-after")


@pytest.mark.parametrize("size", SIZES)
async def test_each_failure_of_a_backend_is_a_status_and_a_message_to_grpc(scene, size):
    async with scene() as gateway:
        found = await asyncio.gather(*(called(gateway, f"grpc-{case}", bytes(size)) for case in CALLS))
        assert dict(zip(CALLS, found, strict=True)) == CALLS
        # The same backend without gRPC.
        assert await called(gateway, "silent", bytes(size)) == ("UNIMPLEMENTED", "NoGRPC", None)


async def test_a_service_without_grpc_says_so(tmp_path, model_servers):
    models = backend("iris-predictor", model_servers["stable"].port)
    async with serving(tmp_path, isvc(), models, entrance) as gateway:
        assert await called(gateway, "any") == ("UNIMPLEMENTED", "NoGRPC", None)
        assert model_servers["stable"].requests == 0


# -- The gateway's direct answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "answer", "status"),
    [
        (isvc(), (503, "NoBackendReady", "5"), "UNAVAILABLE"),
        (isvc(annotations={"serving.kserve.io/stop": "true"}), (503, "Stopped", "5"), "UNAVAILABLE"),
        (isvc(labels={"networking.kserve.io/visibility": "cluster-local"}), (404, "NotFound", None), "UNIMPLEMENTED"),
        (None, (404, "NotFound", None), "UNIMPLEMENTED"),
    ],
    ids=["none-ready", "stopped", "other-host", "gone"],
)
async def test_direct_answers_have_the_three_forms_as_well(tmp_path, target, answer, status):
    async with serving(tmp_path, isvc(), service("iris-predictor", h2c=80), entrance) as gateway:
        gateway.plane.put(target) if target else gateway.plane.remove(isvc())
        await gateway.settled()
        for size in SIZES:
            how = {"method": "POST", "body": bytes(size)}
            assert in_json(await gateway.ask(PREDICT, **how)) == answer
            assert in_openais(await gateway.ask(CHAT, **how)) == answer
            assert await called(gateway, "any", bytes(size)) == (status, *answer[1:])


async def test_answers_that_are_no_errors_of_requests_keep_their_form(tmp_path):
    async with serving(tmp_path, isvc(), service("iris-predictor"), entrance) as gateway:
        reply = await gateway.ask("/readyz")
        assert (reply.status, json.loads(reply.body)) == (503, {"status": "no backend is ready"})
        assert (await gateway.ask("/healthz")).body == b'{"status": "ok"}'
        for path in ("/a%2Fb", "/v1%2Fcompletions"):
            reply = await gateway.ask(path)
            assert (reply.status, reply.body, reply.header("content-type")) == (307, b"", None)


@pytest.mark.parametrize("case", ["two hosts", "user information", "TRACE", "control character"])
async def test_what_is_refused_for_two_reasons_is_told_the_one_of_its_status(scene, case):
    lines, _ = REFUSED_WITH_A_PATH[case]
    async with scene() as gateway:
        assert in_json(await send(gateway, [*lines, "connection: upgrade", "upgrade: x"], "/"))[1] == "UpgradeRefused"
        assert (await send(gateway, lines, "/a%2Fb")).body == b""


# -- What answers do not tell, and what they leave alone -------------------------------------------------------------

INSIDE = re.compile(r"[a-z]_[a-z]|127\.0|models/|silent|refus|connection|connect error|remote|transport|reset|envoy")


async def every_answer(gateway):
    """Bodies and names of headers of all that the gateway says of failures, over HTTP and gRPC."""
    replies = await ask_all(gateway, PREDICT, KIB)
    for case, (lines, _) in (REFUSED_WITH_A_PATH | REFUSED_WITHOUT).items():
        replies[case] = await send(gateway, lines, PREDICT)
    said = {case: f"{reply.body.decode()} {set(reply.headers) - {'connection'}}" for case, reply in replies.items()}
    for case in CALLS:
        said[f"grpc-{case}"] = (await failed_call(gateway, f"grpc-{case}")).details()
    return said


async def test_no_answer_tells_of_the_inside(scene):
    async with scene() as gateway:
        for case, text in (await every_answer(gateway)).items():
            own = text.replace("broke the connection", "").replace("UpgradeRefused", "")
            assert not INSIDE.search(own.lower()), (case, text)


async def test_answers_name_the_backend_and_how_it_failed_where_the_operator_wants_it(scene):
    async with scene(options=Options(name_backends_in_errors=True)) as gateway:
        said = await every_answer(gateway)
        for case in {*FAILURES, *(f"grpc-{case}" for case in CALLS)} - {"none", "idle", "grpc-none", "grpc-idle"}:
            assert f"models/iris/{case}: " in said[case]


async def as_asked(head, writer):
    """A model that answers with the status and size that the request names."""
    status, size = map(int, re.search(r"x-answer: (\d+)/(\d+)", head).groups())
    said = f"HTTP/1.1 {status} Own\r\ncontent-type: text/own\r\nx-own: 1\r\ncontent-length: {size}\r\n\r\n"
    writer.write(said.encode() + b"o" * size)


@pytest.mark.parametrize("size", SIZES)
async def test_a_models_own_errors_pass_unchanged(tmp_path, size):
    async with (
        stub_server(as_asked) as port,
        serving(tmp_path, isvc(), backend("iris-predictor", port), entrance) as gateway,
    ):
        for status in (400, 403, 404, 405, 408, 413, 418, 426, 429, 431, 500, 502, 503, 504, 507):
            for path in (PREDICT, CHAT, "/v1/models"):
                asked = {"headers": [("x-answer", f"{status}/{size}")], "body": bytes(size)}
                reply = await gateway.ask(path, method="POST", **asked)
                assert (reply.status, reply.body) == (status, b"o" * size)
                assert (reply.header("content-type"), reply.header("x-own")) == ("text/own", "1")
                assert reply.header("retry-after") is None


async def refuse(_, context):
    await context.abort(grpc.StatusCode.UNAVAILABLE, "own words")


async def test_a_models_own_errors_of_grpc_pass_unchanged(tmp_path):
    server = grpc.aio.server()
    handlers = {"Ask": grpc.unary_unary_rpc_method_handler(refuse)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Model", handlers),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    made = [service("iris-predictor", h2c=80), endpoints("iris-predictor", port, port_name="h2c")]
    async with serving(tmp_path, isvc(), made, entrance) as gateway:
        for size in SIZES:
            error = await failed_call(gateway, "any", bytes(size))
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "own words")
            assert "retry-after" not in dict(error.trailing_metadata())
    await server.stop(None)
