"""The Router API against the running process: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.router.rig import HOST, Client, cancelled
from tests.support.wait import wait_until

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MAX = 100_000


@pytest.fixture
async def client(shared):
    async with Client(shared) as client:
        yield client


async def raw(process, data):
    """The head of the first answer to these bytes."""
    reader, writer = await asyncio.open_connection(HOST, process.port)
    writer.write(data)
    try:
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


async def test_healthz_and_readyz(client):
    assert (await client.ask("GET", "/healthz"))[:2] == (200, {"status": "ok"})
    assert (await client.ask("GET", "/readyz"))[:2] == (200, {"status": "ready"})


async def test_infer_answers_as_the_api_says(client):
    status, answer, headers = await client.infer("héllo \U0001f600 \x00")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert isinstance(answer.pop("processingMs"), int)
    assert answer == {
        "modelRef": "iris",
        "prompt": "héllo \U0001f600 \x00",
        "routerPod": "pod-1",
        "kvEndpoints": ["kv-1:6379", "kv-2:6379"],
    }
    assert headers["x-variant"] == "v2"


async def test_an_empty_prompt_and_fields_beside_it_are_well(client):
    status, answer, _ = await client.ask("POST", "/infer", data=b'{"prompt": "", "more": [1, {"a": null}]}')
    assert (status, answer["prompt"]) == (200, "")


async def test_processing_is_measured(start):
    async with Client(start(PROCESSING_MS="120")) as client:
        answer = (await client.infer("slow"))[1]
    assert 120 <= answer["processingMs"] < 5000


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is not JSON: Expecting value"),
        (b"{", "the body is not JSON: Expecting property name"),
        (b'{"prompt": "a"} x', "the body is not JSON: Extra data"),
        (b'{"prompt": "a', "the body is not JSON: Unterminated string"),
        (b"{'prompt': 'a'}", "the body is not JSON: "),
        (b'\xef\xbb\xbf{"prompt": "a"}', "the body is not JSON: "),
        ('{"prompt": "a"}'.encode("utf-16"), "the body is not JSON: not UTF-8 at byte 0"),
        (b'{"prompt": "\xff"}', "the body is not JSON: not UTF-8 at byte 12"),
        (b'{"prompt": "a", "x": NaN}', "the body is not JSON: NaN is not JSON"),
        (b'{"prompt": "a", "x": -Infinity}', "the body is not JSON: -Infinity is not JSON"),
        (b'{"prompt": "a", "x": 1e999}', "the body is not JSON: 1e999 is beyond a number's range"),
        (b'{"prompt": "a", "x": ' + b"9" * 5000 + b"}", "the body is not JSON: "),
        (b"[" * 50_000, "the body is not JSON: nested too deep"),
        (b'{"a":' * 15_000, "the body is not JSON: nested too deep"),
        (b"[]", "the body is a list, allowed is an object"),
        (b'"prompt"', "the body is a string, allowed is an object"),
        (b"null", "the body is null, allowed is an object"),
        (b"true", "the body is a boolean, allowed is an object"),
        (b"1.5", "the body is a number, allowed is an object"),
        (b"{}", "prompt: missing, allowed is a string"),
        (b'{"Prompt": "a"}', "prompt: missing, allowed is a string"),
        (b'{"prompt": null}', "prompt: found null, allowed is a string"),
        (b'{"prompt": 1}', "prompt: found a number, allowed is a string"),
        (b'{"prompt": true}', "prompt: found a boolean, allowed is a string"),
        (b'{"prompt": ["a"]}', "prompt: found a list, allowed is a string"),
        (b'{"prompt": {"a": "b"}}', "prompt: found an object, allowed is a string"),
        (b'{"prompt": "\\ud800"}', "prompt: found half of a surrogate pair, allowed is Unicode text"),
    ],
)
async def test_a_wrong_body_is_400_with_a_json_error(client, body, error):
    status, answer, headers = await client.ask("POST", "/infer", data=body)
    assert status == 400
    assert answer["error"].startswith(error)
    assert headers["Content-Type"] == "application/json"


ATOMS = st.none() | st.booleans() | st.floats() | st.text()
JSON = st.recursive(ATOMS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_breaks_it(shared, body):
    async def ask():
        async with Client(shared) as client:
            return await client.ask("POST", "/infer", data=body)

    status, answer, _ = asyncio.run(ask())
    assert status == 400
    assert isinstance(answer["error"], str)


async def test_a_body_over_the_limit_is_413(client):
    whole = {"prompt": ""}
    room = MAX - len(json.dumps(whole))
    assert (await client.infer("a" * room))[0] == 200
    status, answer, _ = await client.infer("a" * (room + 1))
    assert (status, answer) == (413, {"error": "the body is too large: allowed are 100000 bytes"})


async def test_a_body_over_the_limit_is_413_also_without_a_length_and_under_compression(client):
    async def parts():
        for _ in range(MAX // 1000 + 1):
            yield b"a" * 1000

    assert (await client.ask("POST", "/infer", data=parts()))[0] == 413
    bomb = gzip.compress(b"a" * 50_000_000)
    assert (await client.ask("POST", "/infer", data=bomb, headers={"Content-Encoding": "gzip"}))[0] == 413


async def test_more_values_than_memory_is_for_are_400(start):
    async with Client(start()) as client:
        for body in (b"[" + b"[]," * 2_000_000 + b"1]", b'{"prompt": "a", "x": [' + b"1," * 2_000_000 + b"1]}"):
            status, answer, _ = await client.ask("POST", "/infer", data=io.BytesIO(body))
            assert (status, answer) == (400, {"error": "the body is not JSON: more than 2000000 elements"})
        text = ',[{"' * 1_000_000 + "\\"
        body = io.BytesIO(json.dumps({"prompt": text}).encode())
        assert (await client.ask("POST", "/infer", data=body))[1]["prompt"] == text
        for rubbish in (b'"\\"' * 1_500_000 + b",[" * 1_500_000, b'"","' * 2_000_000, b'"' + b'\\"' * 3_000_000):
            assert (await client.ask("POST", "/infer", data=io.BytesIO(rubbish)))[0] == 400


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body_is_read(client, coding, compress):
    headers = {"Content-Encoding": coding}
    assert (await client.ask("POST", "/infer", data=compress(b'{"prompt": "a"}'), headers=headers))[0] == 200
    status, answer, _ = await client.ask("POST", "/infer", data=b"no such thing", headers=headers)
    assert status == 400
    assert answer["error"].startswith("the body cannot be read")


@pytest.mark.parametrize(
    ("path", "methods", "allowed"),
    [
        ("/infer", ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"), "POST"),
        ("/healthz", ("POST", "PUT", "OPTIONS"), "GET, HEAD"),
        ("/readyz", ("POST",), "GET, HEAD"),
        ("/v1/models/iris:predict", ("GET", "DELETE"), "POST"),
        ("/v2/models/iris/infer", ("GET",), "POST"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_is_right(client, path, methods, allowed):
    for method in methods:
        status, answer, headers = await client.ask(method, path)
        assert (status, headers["Allow"]) == (405, allowed)
        assert answer == (None if method == "HEAD" else {"error": f"{method} is not allowed here, only {allowed}"})


async def test_an_unknown_path_is_404(client):
    for path in ("/", "/infer/", "/nope", "/v1/models/a/b", "/INFER"):
        assert (await client.ask("GET", path))[:2] == (404, {"error": f"no such endpoint: {path}"})


async def test_head_is_get_without_a_body(client):
    for path in ("/healthz", "/readyz", "/v1/models", "/v2/health/ready"):
        status, body, headers = await client.ask("HEAD", path)
        assert (status, body) == (200, None)
        assert int(headers["Content-Length"]) > 0


async def test_a_request_id_is_made_or_kept_and_returned(client):
    assert ID.fullmatch((await client.infer("a"))[2]["x-request-id"])
    assert (await client.infer("a", headers={"X-Request-ID": "mine"}))[2]["x-request-id"] == "mine"
    assert ID.fullmatch((await client.infer("a", headers={"X-Request-ID": "x" * 2000}))[2]["x-request-id"])
    assert ID.fullmatch((await client.ask("GET", "/nope"))[2]["x-request-id"])


async def test_each_request_is_a_line_of_the_log(client, shared):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.infer("secret words", headers={"x-request-id": "logged", "traceparent": trace})
    (line,) = await wait_until(lambda: [x for x in shared.lines("request") if x["request_id"] == "logged"])
    assert line["ms"] >= 0
    assert {key: line[key] for key in ("method", "path", "status", "traceparent", "peer")} == {
        "method": "POST", "path": "/infer", "status": 200, "traceparent": trace, "peer": HOST,
    }  # fmt: skip
    assert line["bytes"] > 100
    assert "secret words" not in shared.child.log.read_text()


async def test_settings_are_said_at_the_start(shared, start):
    (said,) = shared.lines("settings")
    assert said["kv_endpoints"] == ["kv-1:6379", "kv-2:6379"]
    defaults = {line["variable"]: line["value"] for line in shared.lines("not given: the default holds")}
    assert defaults == {"MAX_CONCURRENCY": 10}
    other = start(MAX_CONCURRENCY="3")
    defaults = {line["variable"]: line["value"] for line in other.lines("not given: the default holds")}
    assert defaults == {"MODEL_REF": "default-model"}
    assert other.lines("settings")[0]["max_concurrency"] == 3


async def test_what_is_no_http_is_400_and_one_line(shared):
    for data in (b"BLA\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"):
        assert (await raw(shared, data))[8:13] == b" 400 "
    assert "Traceback" not in shared.child.log.read_text()


async def test_a_body_that_breaks_off_is_no_request(shared, client):
    before = await client.metric("requests_total", code="gone")
    for head in (b"Content-Length: 100", b"Transfer-Encoding: chunked"):
        _, writer = await asyncio.open_connection(HOST, shared.port)
        writer.write(b"POST /infer HTTP/1.1\r\nHost: a\r\n" + head + b'\r\n\r\n5\r\n{"pro')
        await writer.drain()
        writer.close()
    await client.until("requests_total", before + 2, code="gone")
    assert (await client.infer("a"))[0] == 200


async def test_chunks_that_are_none_are_400(shared):
    head = b"POST /infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await raw(shared, head + b"zz\r\n"))[8:13] == b" 400 "


async def test_a_body_that_does_not_go_on_is_408(start):
    process = start(BODY_TIMEOUT_SECONDS="0.2")
    answer = await raw(process, b"POST /infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer


async def test_slow_bodies_hold_no_place(start):
    process = start(MAX_CONCURRENCY="1")
    slow = [await asyncio.open_connection(HOST, process.port) for _ in range(5)]
    for _, writer in slow:
        writer.write(b'POST /infer HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{"prompt"')
        await writer.drain()
    async with Client(process) as client:
        await client.until("held_bytes", 5 * 9)
        assert (await client.infer("quick"))[0] == 200
        for reader, writer in slow:
            writer.write(b': "a"}')
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()
        await client.until("held_bytes", 0)


async def test_bodies_together_are_bounded(start):
    process = start(MAX_BODY_BYTES="1000", MAX_HELD_BYTES="1500", PROCESSING_MS="60000")
    async with Client(process) as client:
        first = asyncio.ensure_future(client.infer("a" * 900))
        await client.until("running", 1)
        status, answer, headers = await client.infer("a" * 900)
        assert (status, answer) == (429, {"error": "too many large requests at once"})
        assert headers["Retry-After"] == "1"
        assert await client.metric("refused_total", reason="memory") == 1
        await cancelled(first)
        await client.until("held_bytes", 0)


async def test_metrics_are_there_from_the_start(start):
    async with Client(start(MAX_CONCURRENCY="2")) as client:
        for name in ("running", "running_peak", "queued", "held_bytes"):
            assert await client.metric(name) == 0
        for reason in ("queue", "memory"):
            assert await client.metric("refused_total", reason=reason) == 0
        await client.infer("a")
        await client.ask("GET", "/nope")
        assert await client.metric("running_peak") == 1
        assert await client.metric("requests_total", code="4xx") == 1
        assert await client.metric("queue_seconds_count") == 1
        assert await client.metric("request_seconds_count") >= 2
