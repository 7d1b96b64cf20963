"""The protocols of the simulation by the clients that people use: tritonclient over HTTP and gRPC, openai."""

from __future__ import annotations

import asyncio
import functools
import json

import grpc.aio
import numpy as np
import openai
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.router.rig import HOST, Client, cancelled

TENSORS = {
    "BOOL": np.array([[True, False]]),
    **{f"{kind}{bits}": np.array([[1, 2], [3, 100]], dtype=f"{kind.lower()}{bits}")
       for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.array([[0.5], [-2]], dtype=f"float{bits}") for bits in (16, 32, 64)},
    "BYTES": np.array(["a", "", "é" * 300], dtype=object),
}  # fmt: skip


@pytest.fixture(params=["http", "grpc"])
def triton(request, shared):
    """The module of a client, and a client."""
    module, port = (triton_http, shared.port) if request.param == "http" else (triton_grpc, shared.grpc_port)
    client = module.InferenceServerClient(f"{HOST}:{port}")
    yield module, client
    client.close()


def given(module, name, datatype, array, **options):
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **options)
    return tensor


def test_triton_asks_what_there_is(triton):
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "3")


def test_triton_reads_metadata(shared):
    http = triton_http.InferenceServerClient(f"{HOST}:{shared.port}")
    answer = http.get_server_metadata()
    assert (answer["name"], answer["extensions"], answer["variant"]) == ("xdserve", ["binary_tensor_data"], "v2")
    assert http.get_model_metadata("iris", "1")["inputs"] == [{"name": "prompt", "datatype": "BYTES", "shape": [-1]}]
    http.close()
    over_grpc = triton_grpc.InferenceServerClient(f"{HOST}:{shared.grpc_port}")
    assert over_grpc.get_server_metadata(as_json=True)["name"] == "xdserve"
    metadata = over_grpc.get_model_metadata("iris", as_json=True)
    assert (metadata["name"], metadata["inputs"][0]["shape"]) == ("iris", ["-1"])
    over_grpc.close()


@pytest.mark.parametrize("datatype", TENSORS)
def test_triton_gets_its_tensors_back(triton, datatype):
    module, client = triton
    array = TENSORS[datatype]
    result = client.infer(
        "iris", [given(module, "x", datatype, array), given(module, "y", "INT8", np.zeros((0, 3), "int8"))]
    )
    back = result.as_numpy("x")
    assert back.shape == array.shape
    assert [item.decode() for item in back] == list(array) if datatype == "BYTES" else (back == array).all()
    assert result.as_numpy("y").shape == (0, 3)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("datatype", [name for name in TENSORS if name != "FP16"])
def test_triton_may_mix_json_and_binary(shared, datatype, binary_in, binary_out):
    client = triton_http.InferenceServerClient(f"{HOST}:{shared.port}")
    array = TENSORS[datatype]
    inputs = [given(triton_http, "x", datatype, array, binary_data=binary_in)]
    wanted = [triton_http.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer("iris", inputs, outputs=wanted, request_id="mine", model_version="7")
    back = result.as_numpy("y")
    texts = [item.decode() if isinstance(item, bytes) else item for item in back] if datatype == "BYTES" else None
    assert texts == list(array) if texts is not None else (back == array).all()
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("mine", "iris", "7")
    assert answer["variant"] == "v2"
    assert ("parameters" in answer["outputs"][0]) is binary_out
    client.close()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_may_compress(shared, algorithm):
    client = triton_http.InferenceServerClient(f"{HOST}:{shared.port}")
    array = np.arange(1000, dtype="int64")
    result = client.infer("iris", [given(triton_http, "x", "INT64", array)], request_compression_algorithm=algorithm)
    assert (result.as_numpy("x") == array).all()
    client.close()


def test_grpc_says_who_answered(shared):
    client = triton_grpc.InferenceServerClient(f"{HOST}:{shared.grpc_port}")
    result = client.infer("iris", [given(triton_grpc, "x", "FP32", TENSORS["FP32"])], request_id="mine")
    response = result.get_response()
    assert (response.parameters["variant"].string_param, response.id, response.model_version) == ("v2", "mine", "1")
    client.close()


def test_grpc_streams(shared):
    client = triton_grpc.InferenceServerClient(f"{HOST}:{shared.grpc_port}")
    results = []
    client.start_stream(lambda result, error: results.append(error or result.as_numpy("x").item()))
    for number in range(5):
        client.async_stream_infer("iris", [given(triton_grpc, "x", "INT32", np.array([number], "int32"))])
    client.stop_stream()
    assert results == [0, 1, 2, 3, 4]
    client.close()


# -- gRPC with nothing between ---------------------------------------------------------------------------------------


async def call(process, method, message=b"", **options):
    """The answer to a unary call, and its initial metadata."""
    async with grpc.aio.insecure_channel(f"{HOST}:{process.grpc_port}") as channel:
        pending = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(message, timeout=10, **options)
        return await pending, dict(await pending.initial_metadata())


def infer_request(**fields):
    tensor = {"name": "x", "datatype": "INT32", "shape": [2]} | fields
    return service_pb2.ModelInferRequest(model_name="m", inputs=[tensor])


async def test_grpc_takes_contents_that_are_not_raw(shared):
    request = infer_request(contents={"int_contents": [4, 5]})
    data, metadata = await call(shared, "ModelInfer", request.SerializeToString(), metadata=(("x-request-id", "mine"),))
    answer = service_pb2.ModelInferResponse.FromString(data)
    assert list(answer.outputs[0].contents.int_contents) == [4, 5]
    assert not answer.raw_output_contents
    assert (metadata["x-variant"], metadata["x-request-id"]) == ("v2", "mine")


@pytest.mark.parametrize(
    ("data", "details"),
    [
        (b"\xff", "not a ModelInferRequest: "),
        (b"\x2a\x7f", "not a ModelInferRequest: "),
        (b"", "inputs: found none, allowed one or more"),
        (infer_request(), "x: found 0 elements, allowed 2 by its shape"),
        (infer_request(datatype="INT7"), "x: found datatype 'INT7', allowed BOOL "),
        (infer_request(shape=[-1]), "x: shape: allowed are at most 32 extents"),
        (infer_request(shape=[2**40] * 32), "x: found 0 elements, allowed "),
        (infer_request(datatype="INT8", contents={"int_contents": [1, 300]}), "x: has elements that are not INT8"),
        (infer_request(datatype="FP16", contents={"fp32_contents": [1, 2]}), "x: found 0 elements, allowed 2"),
        (
            service_pb2.ModelInferRequest(inputs=[{"name": "x"}], raw_input_contents=[b"", b""]),
            "raw_input_contents: found 2, allowed one for each of 1 inputs",
        ),
        (
            service_pb2.ModelInferRequest(
                inputs=[{"name": "x", "datatype": "INT32", "shape": [1]}], raw_input_contents=[b"123"]
            ),
            "x: found 3 bytes, which are no whole elements",
        ),
        (
            service_pb2.ModelInferRequest(
                inputs=[{"name": "x", "datatype": "BYTES", "shape": [1]}], raw_input_contents=[b"\x05\0\0\0abc"]
            ),
            "x: ends in the middle of an element",
        ),
    ],
)
async def test_a_wrong_grpc_request_is_an_invalid_argument(shared, data, details):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(shared, "ModelInfer", data if isinstance(data, bytes) else data.SerializeToString())
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details().startswith(details)


async def test_an_unknown_grpc_method_is_unimplemented(shared):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(shared, "ModelConfig")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_wrong_message_does_not_end_a_stream(shared):
    async with grpc.aio.insecure_channel(f"{HOST}:{shared.grpc_port}") as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
        well = infer_request(contents={"int_contents": [1, 2]}).SerializeToString()
        answers = []
        for data in (well, b"\xff", well):
            await stream.write(data)
            answers.append(service_pb2.ModelStreamInferResponse.FromString(await stream.read()))
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]


async def test_grpc_shares_the_limit(start):
    process = start(GRPC_PORT="0", MAX_CONCURRENCY="1", OVERFLOW="reject", PROCESSING_MS="600000")
    request = infer_request(contents={"int_contents": [1, 2]}).SerializeToString()
    async with Client(process) as client:
        first = asyncio.ensure_future(call(process, "ModelInfer", request))
        await client.until("running", 1)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(process, "ModelInfer", request)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(raised.value.trailing_metadata())["retry-after"] == "1"
        assert (await client.infer("a"))[0] == 429
        assert (await call(process, "ServerReady"))[0]
        await cancelled(first)
        await client.until("running", 0)


def test_triton_is_told_of_its_mistakes(triton):
    module, client = triton
    wrong = module.InferInput("x", [3], "INT32")
    wrong.set_data_from_numpy(np.zeros(3, "int32"))
    wrong.set_shape([4])
    with pytest.raises(InferenceServerException, match="x: found 3 elements, allowed 4 by its shape"):
        client.infer("iris", [wrong])


# -- v2 over HTTP with nothing between -------------------------------------------------------------------------------

WELL = {"name": "x", "datatype": "INT32", "shape": [2], "data": [1, 2]}


@pytest.fixture
async def client(shared):
    async with Client(shared) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "inputs: found null, allowed is a list of one or more tensors"),
        ({"inputs": []}, "inputs: found a list, allowed is a list of one or more tensors"),
        ({"inputs": [1]}, "inputs[0]: found a number, allowed is an object"),
        ({"inputs": [{}]}, "inputs[0]: allowed are name and datatype (strings) and shape (a list)"),
        ({"inputs": [WELL | {"shape": [2.0]}]}, "inputs[0].shape: allowed is a list of whole numbers"),
        ({"inputs": [WELL | {"shape": [True]}]}, "inputs[0].shape: allowed is a list of whole numbers"),
        ({"inputs": [WELL | {"shape": [10**4000] * 9}]}, "x: shape: allowed are at most 32 extents of 0.."),
        ({"inputs": [WELL | {"shape": [1] * 33}]}, "x: shape: allowed are at most 32 extents of 0.."),
        ({"inputs": [WELL | {"data": 1}]}, "x: found 1 elements, allowed 2 by its shape"),
        ({"inputs": [WELL | {"data": None}]}, "x: found 1 elements, allowed 2 by its shape"),
        ({"inputs": [WELL | {"data": ["a", 1]}]}, "x: has elements that are not INT32"),
        ({"inputs": [WELL | {"data": [1.5, 1]}]}, "x: has elements that are not INT32"),
        ({"inputs": [WELL | {"data": [True, 1]}]}, "x: has elements that are not INT32"),
        ({"inputs": [WELL | {"data": [2**31, 1]}]}, "x: has elements that are not INT32"),
        ({"inputs": [WELL | {"datatype": "FP32", "data": [1e300, 1]}]}, "x: has elements that are not FP32"),
        ({"inputs": [WELL | {"datatype": "BYTES"}]}, "x: has elements that are not text"),
        ({"inputs": [WELL | {"datatype": "BYTES", "data": ["\ud800", ""]}]}, "x: has elements that are not text"),
        ({"inputs": [WELL | {"datatype": "BF16"}]}, "x: BF16 is given as binary data alone"),
        ({"inputs": [WELL | {"datatype": "int32"}]}, "x: found datatype 'int32', allowed BOOL"),
        ({"inputs": [{**WELL, "data": [[[[1]]], [2, 3]]}]}, "x: found 3 elements, allowed 2 by its shape"),
        (
            {"inputs": [WELL | {"data": functools.reduce(lambda data, _: [data], range(40), 1)}]},
            "data: nested more than",
        ),
        ({"inputs": [{key: WELL[key] for key in ("name", "datatype", "shape")}]}, "inputs[0]: has no data"),
        ({"inputs": [WELL | {"parameters": []}], "outputs": 1}, "outputs: found a number, allowed is a list"),
        ({"inputs": [WELL | {"parameters": 1}]}, "inputs[0].parameters: found a number, allowed is an object"),
        ({"inputs": [WELL], "outputs": [{}]}, "outputs[0].name: found null, allowed is a string"),
        ({"inputs": [WELL], "outputs": ["x"]}, "outputs[0]: found a string, allowed is an object"),
        ({"inputs": [WELL], "parameters": "x"}, "parameters: found a string, allowed is an object"),
        (
            {"inputs": [WELL | {"parameters": {"binary_data_size": 9}}]},
            "inputs[0].parameters.binary_data_size: allowed 0..0, the bytes that are left",
        ),
    ],
)
async def test_a_wrong_v2_request_is_400(client, body, error):
    status, answer, _ = await client.ask("POST", "/v2/models/m/infer", json=body)
    assert status == 400
    assert answer["error"].startswith(error)


@pytest.mark.parametrize("size", ["", "x", "-1", "+1", "1.5", "999999999", "9" * 5000, "²", "3"])
async def test_a_wrong_size_of_the_json_is_400(client, size):
    headers = {"Inference-Header-Content-Length": size}
    status, answer, _ = await client.ask(
        "POST", "/v2/models/m/infer", data=json.dumps({"inputs": [WELL]}), headers=headers
    )
    assert status == 400
    assert isinstance(answer["error"], str)


async def test_bytes_that_belong_to_no_tensor_are_400(client):
    text = json.dumps({"inputs": [WELL]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = await client.ask("POST", "/v2/models/m/infer", data=text + b"more", headers=headers)
    assert answer[:2] == (400, {"error": "the body has 4 bytes more than its tensors"})


async def test_binary_elements_that_json_cannot_have_are_400(client):
    for datatype, data in (("FP32", np.array([np.nan], "float32").tobytes()), ("BYTES", b"\x01\0\0\0\xff")):
        tensor = {"name": "x", "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": len(data)}}
        text = json.dumps({"inputs": [tensor]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        status, answer, _ = await client.ask("POST", "/v2/models/m/infer", data=text + data, headers=headers)
        assert status == 400
        assert answer["error"].endswith("ask for binary data")


# -- v1 --------------------------------------------------------------------------------------------------------------


async def test_v1(client):
    assert (await client.ask("GET", "/v1/models"))[1]["models"] == ["iris"]
    answer = (await client.ask("GET", "/v1/models/some%2Fmodel"))[1]
    assert (answer["name"], answer["ready"], answer["variant"]) == ("some/model", True, "v2")
    for action, field in (("predict", "predictions"), ("explain", "explanations")):
        status, answer, headers = await client.ask("POST", f"/v1/models/iris:{action}", json={"instances": [[1], "a"]})
        assert (status, answer) == (200, {field: [[1], "a"], "variant": "v2"})
        assert headers["x-variant"] == "v2"


@pytest.mark.parametrize("body", [{}, {"instances": 1}, {"instances": {"a": 1}}, []])
async def test_a_wrong_v1_request_is_400(client, body):
    for action in ("predict", "explain"):
        assert (await client.ask("POST", f"/v1/models/iris:{action}", json=body))[0] == 400


# -- OpenAI ----------------------------------------------------------------------------------------------------------

WORDS = "Tell me a  story\nof two words "


@pytest.fixture
def ai(shared):
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_lists_the_model(ai):
    assert [model.id for model in ai.models.list()] == ["iris"]
    assert ai.models.retrieve("iris").id == "iris"


def test_openai_chat(ai):
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": WORDS}]
    answer = ai.chat.completions.create(model="iris", messages=messages)
    assert answer.choices[0].message.content == WORDS
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 7, 16)
    assert (answer.object, answer.model, answer.system_fingerprint, answer.variant) == (
        "chat.completion", "iris", "v2", "v2",
    )  # fmt: skip


def test_openai_chat_as_a_stream(ai):
    messages = [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]
    options = {"include_usage": True}
    with ai.chat.completions.create(model="iris", messages=messages, stream=True, stream_options=options) as stream:
        *chunks, last = stream
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WORDS
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert (last.choices, last.usage.completion_tokens) == ([], 7)
    assert {chunk.variant for chunk in chunks} == {"v2"}


def test_openai_completions(ai):
    answer = ai.completions.create(model="iris", prompt=["one two three", "four"], max_tokens=2)
    assert [choice.text for choice in answer.choices] == ["one two", "four"]
    assert [choice.finish_reason for choice in answer.choices] == ["length", "stop"]
    chunks = list(ai.completions.create(model="iris", prompt=WORDS, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == WORDS


def test_openai_is_told_of_its_mistakes(ai):
    with pytest.raises(openai.BadRequestError, match="n: allowed is 1"):
        ai.chat.completions.create(model="iris", messages=[{"role": "user", "content": "a"}], n=2)


async def test_a_stream_is_server_sent_events(client):
    body = {"model": "iris", "messages": [{"role": "user", "content": "a b"}], "stream": True}
    async with client.session.post("/v1/chat/completions", json=body) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-variant"] == "v2"
        *events, end = (await response.text()).split("\n\n")
    assert end == ""
    assert events[-1] == "data: [DONE]"
    parts = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert [part["choices"][0]["delta"].get("content") for part in parts] == ["", "a", " b", None]


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/v1/completions", {}, "prompt: found null, allowed is a string"),
        ("/v1/completions", {"prompt": [1, 2], "model": "m"}, "prompt[0]: found a number, allowed is a string"),
        ("/v1/completions", {"prompt": [], "model": "m"}, "prompt: found a list, allowed is a string"),
        ("/v1/completions", {"prompt": "a"}, "model: found null, allowed is a string"),
        ("/v1/completions", {"prompt": "a", "model": "m", "max_tokens": -1}, "max_tokens: allowed is a whole number"),
        ("/v1/completions", {"prompt": "a", "model": "m", "max_tokens": "1"}, "max_tokens: allowed is a whole number"),
        ("/v1/chat/completions", {"model": "m"}, "messages: found null, allowed is a list of one or more messages"),
        ("/v1/chat/completions", {"model": "m", "messages": [1]}, "messages: found a list, allowed is a list of"),
        ("/v1/chat/completions", {"model": "m", "messages": [{}]}, "messages[0].content: found null, allowed is a"),
        (
            "/v1/chat/completions",
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content: found null, allowed is a string",
        ),
    ],
)
async def test_a_wrong_openai_request_is_400_in_its_shape(client, path, body, error):
    status, answer, _ = await client.ask("POST", path, json=body)
    assert status == 400
    assert answer["error"].pop("message").startswith(error)
    assert answer["error"] == {"type": "invalid_request_error", "param": None, "code": None}


async def test_who_leaves_a_stream_frees_the_place(start):
    async with Client(start(PROCESSING_MS="600000")) as client:
        body = {"model": "iris", "prompt": "a b", "stream": True}
        async with client.session.post("/v1/completions", json=body) as response:
            assert response.status == 200
            assert await client.metric("running") == 1
        await client.until("running", 0)


async def test_echo_shows_what_arrived(client):
    status, answer, _ = await client.ask("PUT", "/echo/some/where?a=1", data="text", headers={"X-Tester": "true"})
    headers = answer.pop("headers")
    assert (status, headers["x-tester"]) == (200, "true")
    assert answer == {"method": "PUT", "path": "/echo/some/where?a=1", "body": "text", "variant": "v2"}
    assert (await client.ask("GET", "/echo"))[1]["path"] == "/echo"


async def test_messages_over_grpc_are_bounded_together(start):
    process = start(GRPC_PORT="0", MAX_BODY_BYTES="1000", MAX_HELD_BYTES="1500", PROCESSING_MS="600000")
    request = infer_request(shape=[900], datatype="INT8", contents={"int_contents": [1] * 900}).SerializeToString()
    async with Client(process) as client:
        first = asyncio.ensure_future(call(process, "ModelInfer", request))
        await client.until("running", 1)
        with pytest.raises(grpc.aio.AioRpcError, match="too many large requests at once"):
            await call(process, "ModelInfer", request)
        await cancelled(first)
        await client.until("held_bytes", 0)
