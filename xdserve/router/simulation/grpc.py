"""The open inference protocol over gRPC, under the same limit as HTTP: outputs are the inputs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
import structlog
from betterproto2 import Message

from xds.wire import DecodeError, decode, encode
from xdserve.router.answers import Failure
from xdserve.router.api.inference import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferRequestInferInputTensor,
    ModelInferResponse,
    ModelInferResponseInferOutputTensor,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelMetadataResponseTensorMetadata,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelStreamInferResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from xdserve.router.simulation import v2
from xdserve.router.simulation.base import VARIANT, Simulation
from xdserve.router.simulation.tensors import Tensor, TensorError, echo
from xdserve.router.tracing import REQUEST_ID, trace_of

SERVICE = "inference.GRPCInferenceService"

logger = structlog.get_logger("xdserve.router")

R = TypeVar("R", bound=Message)
Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]

# Where each type's elements are, if they are not raw bytes. The types that are missing come as raw bytes alone.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip

_STATUS = {429: grpc.StatusCode.RESOURCE_EXHAUSTED, 400: grpc.StatusCode.INVALID_ARGUMENT}


class GrpcSimulation:
    """Serves one simulation over gRPC. `start` before use, `stop` after."""

    def __init__(self, simulation: Simulation, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._simulation, self._clock, self._max_bytes = simulation, clock, max_bytes
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> int:
        """Listen at HOST:PORT; the port that was taken (for port 0).

        Raises:
            OSError: the address cannot be listened at.
        """
        options = (
            ("grpc.max_receive_message_length", self._max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        )
        server = self._server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))
        try:
            port: int = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen at {address}: {error}") from error
        await server.start()
        return port

    async def stop(self, grace: float | None) -> None:
        """Accept nothing new, and cut what still runs after `grace` seconds (None: at once)."""
        if self._server is not None:
            await self._server.stop(grace)

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        unary = {
            "ServerLive": self._unary(ServerLiveRequest, _live),
            "ServerReady": self._unary(ServerReadyRequest, _ready),
            "ServerMetadata": self._unary(ServerMetadataRequest, _server_metadata),
            "ModelReady": self._unary(ModelReadyRequest, _model_ready),
            "ModelMetadata": self._unary(ModelMetadataRequest, _model_metadata),
            "ModelInfer": self._unary(ModelInferRequest, self._infer),
        }
        methods = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in unary.items()}
        return methods | {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream)}

    def _unary(
        self, kind: type[R], answer: Callable[[R], Awaitable[Message]]
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def handler(data: bytes, context: Context) -> bytes:
            call = _Call(kind.__name__.removesuffix("Request"), context, self._clock)
            try:
                await context.send_initial_metadata(self._metadata(call))
                with self._simulation.admission.holding(len(data)):
                    response = encode(await answer(_decoded(kind, data)))
            except Failure as error:
                call.code = _STATUS[error.status]
                return await _abort(context, call.code, error)
            else:
                call.code = grpc.StatusCode.OK
                return response
            finally:
                call.tell(self._clock())

        return handler

    async def _stream(self, _requests: object, context: Context) -> None:
        """Answer each request of a stream in turn; a wrong one gets its error, and the stream goes on."""
        call = _Call("ModelStreamInfer", context, self._clock)
        try:
            await context.send_initial_metadata(self._metadata(call))
            async for data in _messages(context):
                await context.write(encode(await self._part(data)))
            call.code = grpc.StatusCode.OK
        finally:
            call.tell(self._clock())

    async def _part(self, data: bytes) -> ModelStreamInferResponse:
        try:
            with self._simulation.admission.holding(len(data)):
                return ModelStreamInferResponse(infer_response=await self._infer(_decoded(ModelInferRequest, data)))
        except Failure as error:
            return ModelStreamInferResponse(error_message=error.message)

    def _metadata(self, call: _Call) -> tuple[tuple[str, str], ...]:
        return ((VARIANT, self._simulation.variant), (REQUEST_ID, call.trace[REQUEST_ID]))

    async def _infer(self, request: ModelInferRequest) -> ModelInferResponse:
        try:
            inputs = _inputs(request)
        except TensorError as error:
            raise Failure(400, str(error)) from None
        async with self._simulation.working():
            outputs = echo(inputs, [output.name for output in request.outputs])
        return ModelInferResponse(
            model_name=request.model_name,
            model_version=request.model_version or v2.VERSION,
            id=request.id,
            parameters={"variant": InferParameter(string_param=self._simulation.variant)},
            outputs=[_output(tensor) for tensor in outputs],
            raw_output_contents=[tensor.raw for tensor in outputs if tensor.raw is not None],
        )


class _Call:
    """One call, for the log."""

    def __init__(self, method: str, context: Context, clock: Callable[[], float]) -> None:
        self.code = grpc.StatusCode.CANCELLED
        self.trace = trace_of({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        self._method, self._peer, self._started = method, context.peer(), clock()

    def tell(self, now: float) -> None:
        logger.info(
            "call",
            method=self._method,
            code=self.code.name,
            ms=round((now - self._started) * 1000, 3),
            request_id=self.trace[REQUEST_ID],
            traceparent=self.trace.get("traceparent"),
            peer=self._peer,
        )


async def _abort(context: Context, code: grpc.StatusCode, error: Failure) -> bytes:
    trailing = tuple((name.lower(), value) for name, value in error.headers.items())
    await context.abort(code, error.message, trailing)
    raise AssertionError  # abort raises


async def _messages(context: Context) -> AsyncIterator[bytes]:
    while (data := await context.read()) is not grpc.aio.EOF:
        yield data


def _decoded(kind: type[R], data: bytes) -> R:
    try:
        return decode(kind, data)
    except DecodeError as error:
        raise Failure(400, f"not a {kind.__name__}: {error}") from None


def _inputs(request: ModelInferRequest) -> list[Tensor]:
    """The input tensors; raises TensorError."""
    raw: Sequence[bytes | None] = request.raw_input_contents or [None] * len(request.inputs)
    if len(raw) != len(request.inputs):
        raise TensorError(f"raw_input_contents: found {len(raw)}, allowed one for each of {len(request.inputs)} inputs")
    if not request.inputs:
        raise TensorError("inputs: found none, allowed one or more")
    return [_input(tensor, data).checked() for tensor, data in zip(request.inputs, raw, strict=True)]


def _input(tensor: ModelInferRequestInferInputTensor, raw: bytes | None) -> Tensor:
    shape = tuple(tensor.shape)
    if raw is not None:
        return Tensor(tensor.name, tensor.datatype, shape, raw=raw)
    field = _CONTENTS.get(tensor.datatype)
    values: Any = getattr(tensor.contents, field) if field and tensor.contents is not None else []
    return Tensor(tensor.name, tensor.datatype, shape, values=values)


def _output(tensor: Tensor) -> ModelInferResponseInferOutputTensor:
    contents = None
    if tensor.values is not None:
        contents = InferTensorContents(**{_CONTENTS[tensor.datatype]: list(tensor.values)})
    return ModelInferResponseInferOutputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape), contents=contents
    )


async def _live(_: ServerLiveRequest) -> ServerLiveResponse:
    return ServerLiveResponse(live=True)


async def _ready(_: ServerReadyRequest) -> ServerReadyResponse:
    return ServerReadyResponse(ready=True)


async def _model_ready(_: ModelReadyRequest) -> ModelReadyResponse:
    return ModelReadyResponse(ready=True)


async def _server_metadata(_: ServerMetadataRequest) -> ServerMetadataResponse:
    return ServerMetadataResponse(**v2.server_metadata())


async def _model_metadata(request: ModelMetadataRequest) -> ModelMetadataResponse:
    content = v2.model_metadata(request.name)
    tensors = {
        field: [ModelMetadataResponseTensorMetadata(**tensor) for tensor in content[field]]
        for field in ("inputs", "outputs")
    }
    return ModelMetadataResponse(**content | tensors)
