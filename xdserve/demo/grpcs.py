"""A client of the open inference protocol over gRPC, with the program's own message classes."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio

from xds.wire import decode, encode
from xdserve.demo.driver import Answer, Tally
from xdserve.demo.gateway import Gateway
from xdserve.demo.models import HOST
from xdserve.router.api.inference import (
    InferTensorContents,
    ModelInferRequest,
    ModelInferRequestInferInputTensor,
    ModelInferResponse,
)

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_SECONDS = 10.0
_AT_ONCE = 8


def _question(model: str) -> bytes:
    values = InferTensorContents(fp32_contents=[6.8, 2.8, 4.8, 1.4])
    tensor = ModelInferRequestInferInputTensor(name="x", datatype="FP32", shape=[1, 4], contents=values)
    return encode(ModelInferRequest(model_name=model, inputs=[tensor]))


async def infer(gateway: Gateway, requests: int, tally: Tally) -> None:
    """Ask `requests` times over one connection; a variant counts in `tally` once its answer could be read."""
    question = _question(gateway.service)
    options = [("grpc.default_authority", gateway.host())]
    async with grpc.aio.insecure_channel(f"{HOST}:{gateway.port}", options=options) as channel:
        method = channel.unary_unary(_METHOD)
        share = [requests // _AT_ONCE + (index < requests % _AT_ONCE) for index in range(_AT_ONCE)]
        await asyncio.gather(*(_ask(method, question, count, tally) for count in share))


async def _ask(
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], question: bytes, count: int, tally: Tally
) -> None:
    for _ in range(count):
        try:
            answer = decode(ModelInferResponse, await method(question, timeout=_SECONDS))
        except grpc.aio.AioRpcError:
            tally.lost += 1
        else:
            tally.add(Answer(200, answer.parameters["variant"].string_param or "", "", time.perf_counter()))
