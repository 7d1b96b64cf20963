"""Model servers inside the test's own process: HTTP (KServe v1 and v2, echo) and gRPC (any unary method)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio

from tests.support.model import Model, serve

HOST = "127.0.0.1"


@dataclass
class Server:
    """A running model server; `requests` counts what reached it."""

    model: Model
    port: int

    @property
    def variant(self):
        return self.model.variant

    @property
    def requests(self):
        return self.model.requests

    @property
    def address(self):
        return f"{HOST}:{self.port}"


@asynccontextmanager
async def model_server(variant, port=0, *, tls=None):
    """An HTTP model server; every answer names `variant` in the field `variant` and the header `x-variant`.

    With an `ssl.SSLContext` it speaks TLS.
    """
    model = Model(variant)
    async with serve(model, HOST, port, tls=tls) as bound:
        yield Server(model, bound)


@dataclass
class GrpcModel:
    """Answers every unary method with the name of the variant, and keeps methods and metadata as they arrived."""

    variant: str
    port: int = 0
    calls: list = field(default_factory=list)

    @property
    def address(self):
        return f"{HOST}:{self.port}"

    def service(self, details):
        async def answer(request, context):
            self.calls.append((details.method, dict(context.invocation_metadata()), request))
            context.set_trailing_metadata((("x-variant", self.variant),))
            return self.variant.encode()

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def grpc_model(variant, port=0, host=HOST, *, tls=None):
    """A gRPC model server, by TLS with a certificate (`certificates.Pair`)."""
    model = GrpcModel(variant)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((model,))
    model.port = add_port(server, f"{host}:{port}", tls)
    await server.start()
    try:
        yield model
    finally:
        await server.stop(None)


def add_port(server, address, tls):
    """A port of a server for gRPC, by TLS with a certificate."""
    if tls is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, grpc.ssl_server_credentials([(tls.key, tls.certificate)]))


async def grpc_ask(port, method="/inference.GRPCInferenceService/ModelInfer", metadata=(), authority=None, request=b""):
    """The name of the variant that answers a unary call; grpc.aio.AioRpcError if none does."""
    options = [("grpc.default_authority", authority)] if authority else None
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=options) as channel:
        answer = await channel.unary_unary(method)(request, metadata=metadata, timeout=10)
    return answer.decode()
