"""The open inference protocol (KServe v2) over HTTP, with binary tensors: outputs are the inputs.

Binary tensors are Triton's extension: the JSON's size is in a header, each tensor's in `parameters.binary_data_size`,
and the tensors follow the JSON in their order.
"""

from __future__ import annotations

import json
from importlib import metadata

from aiohttp import web

from xdserve.router.answers import MODEL, Body, Endpoint, Failure
from xdserve.router.body import kind_of, parse_object
from xdserve.router.simulation.base import VARIANT, Simulation
from xdserve.router.simulation.tensors import Tensor, TensorError, echo, flat

JSON_SIZE = "Inference-Header-Content-Length"
EXTENSIONS = ("binary_tensor_data",)
VERSION = "1"

_VERSION = "/versions/{version:[^/]+}"


def endpoints(simulation: Simulation) -> tuple[Endpoint, ...]:
    """What v2 has; a model's paths also with a version."""

    async def server(_: web.Request) -> web.Response:
        return simulation.reply(server_metadata())

    async def live(_: web.Request) -> web.Response:
        return simulation.reply({"live": True})

    async def ready(_: web.Request) -> web.Response:
        return simulation.reply({"ready": True})

    async def model(request: web.Request) -> web.Response:
        return simulation.reply(model_metadata(request.match_info["model"]))

    async def model_ready(request: web.Request) -> web.Response:
        return simulation.reply({"name": request.match_info["model"], "ready": True})

    async def infer(request: web.Request) -> web.Response:
        return await _infer(simulation, request)

    path = f"/v2/models/{MODEL}"
    of_models = [
        (method, f"{path}{version}{rest}", text, handler)
        for version in ("", _VERSION)
        for method, rest, text, handler in (
            ("GET", "", "v2: what the model is", model),
            ("GET", "/ready", "v2: whether the model is ready (always)", model_ready),
            ("POST", "/infer", "v2: the inputs as outputs, also as binary tensors", infer),
        )
    ]
    return (
        Endpoint("GET", "/v2", "v2: what the server is", server),
        Endpoint("GET", "/v2/health/live", "v2: whether the server lives (always)", live),
        Endpoint("GET", "/v2/health/ready", "v2: whether the server is ready (always)", ready),
        *(Endpoint(*parts) for parts in of_models),
    )


async def _infer(simulation: Simulation, request: web.Request) -> web.Response:
    body = await simulation.admission.body(request)
    try:
        content, inputs = read(body, request.headers.get(JSON_SIZE))
        outputs = _outputs(content, inputs)
        async with simulation.working():
            head = _head(request, content) | {"variant": simulation.variant}
        return _answer(head, outputs, simulation.variant)
    except TensorError as error:
        raise Failure(400, str(error)) from None


def server_metadata() -> Body:
    """Name, version and extensions of the server."""
    return {"name": "xdserve", "version": metadata.version("xdserve"), "extensions": list(EXTENSIONS)}


def model_metadata(name: str) -> Body:
    """What a model takes and gives: any number of tensors, one of them named here."""
    prompt = {"name": "prompt", "datatype": "BYTES", "shape": [-1]}
    return {"name": name, "versions": [VERSION], "platform": "xdserve", "inputs": [prompt], "outputs": [prompt]}


def read(body: bytes, json_size: str | None) -> tuple[Body, list[Tensor]]:
    """A request's JSON and its input tensors.

    Raises:
        Failure: 400, it is not JSON of this form.
        TensorError: a tensor is not what it says it is.
    """
    size = len(body)
    if json_size is not None:
        if not (json_size.isascii() and json_size.isdigit()) or int(json_size[:20]) > size:
            raise Failure(400, f"{JSON_SIZE}: found {json_size!r:.40}, allowed 0..{size}, the size of the body")
        size = int(json_size[:20])
    content = parse_object(body[:size])
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise Failure(400, f"inputs: found {kind_of(inputs)}, allowed is a list of one or more tensors")
    tensors = []
    for index, item in enumerate(inputs):
        tensor, used = _tensor(item, f"inputs[{index}]", body, size)
        size += used
        tensors.append(tensor.checked())
    if size != len(body):
        raise Failure(400, f"the body has {len(body) - size} bytes more than its tensors")
    return content, tensors


def _tensor(item: object, where: str, body: bytes, at: int) -> tuple[Tensor, int]:
    """A tensor of a request, and how many of the bytes from `at` on are its own."""
    fields = _fields(item, where)
    name, datatype, shape = fields.get("name"), fields.get("datatype"), fields.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        raise Failure(400, f"{where}: allowed are name and datatype (strings) and shape (a list)")
    if not all(type(extent) is int for extent in shape):
        raise Failure(400, f"{where}.shape: allowed is a list of whole numbers")
    tensor = Tensor(name, datatype, tuple(shape))
    parameters = _fields(fields.get("parameters") or {}, f"{where}.parameters")
    if (size := parameters.get("binary_data_size")) is None:
        if "data" not in fields:
            raise Failure(400, f"{where}: has no data")
        return Tensor(name, datatype, tensor.shape, values=flat(fields["data"])), 0
    if not isinstance(size, int) or not 0 <= size <= len(body) - at:
        raise Failure(400, f"{where}.parameters.binary_data_size: allowed 0..{len(body) - at}, the bytes that are left")
    return Tensor(name, datatype, tensor.shape, raw=body[at : at + size]), size


def _fields(item: object, where: str) -> Body:
    if not isinstance(item, dict):
        raise Failure(400, f"{where}: found {kind_of(item)}, allowed is an object")
    return item


def _outputs(content: Body, inputs: list[Tensor]) -> list[tuple[Tensor, bool]]:
    """The outputs that are asked for, each with whether it is wanted as bytes."""
    by_default = _fields(content.get("parameters") or {}, "parameters").get("binary_data_output") is True
    asked = content.get("outputs") or []
    if not isinstance(asked, list):
        raise Failure(400, f"outputs: found {kind_of(asked)}, allowed is a list")
    names, binary = [], []
    for index, item in enumerate(asked):
        fields = _fields(item, f"outputs[{index}]")
        if not isinstance(fields.get("name"), str):
            raise Failure(400, f"outputs[{index}].name: found {kind_of(fields.get('name'))}, allowed is a string")
        parameters = _fields(fields.get("parameters") or {}, f"outputs[{index}].parameters")
        names.append(fields["name"])
        binary.append(parameters.get("binary_data", by_default) is True)
    outputs = echo(inputs, names)
    return list(zip(outputs, binary or [by_default] * len(outputs), strict=True))


def _head(request: web.Request, content: Body) -> Body:
    head: Body = {
        "model_name": request.match_info["model"],
        "model_version": request.match_info.get("version", VERSION),
    }
    return head | {"id": content["id"]} if isinstance(content.get("id"), str) else head


def _answer(head: Body, outputs: list[tuple[Tensor, bool]], variant: str) -> web.Response:
    shown: list[Body] = []
    tail: list[bytes] = []
    for tensor, binary in outputs:
        item: Body = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary:
            tail.append(tensor.as_raw())
            item["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            item["data"] = tensor.as_values()
        shown.append(item)
    text = json.dumps(head | {"outputs": shown}).encode()
    headers = {"Content-Type": "application/octet-stream" if tail else "application/json", VARIANT: variant}
    if tail:
        headers[JSON_SIZE] = str(len(text))
    return web.Response(body=b"".join([text, *tail]), headers=headers)
