"""Streams and calls over gRPC: a model that answers by the test's word, and clients that stay on one connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress

import grpc.aio

from tests.support.models import add_port

HOST = "127.0.0.1"
SERVICE = "/inference.GRPCInferenceService"
CALL, STREAM = f"{SERVICE}/ModelInfer", f"{SERVICE}/ModelStreamInfer"


class GrpcStreamer:
    """A model that answers calls at once, and whose streams have what `send` says from then on."""

    def __init__(self):
        self._streams = []

    def service(self, details):
        if details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request, _):
        return request

    async def _stream(self, _, context):
        events = asyncio.Queue()
        self._streams.append(events)
        await context.send_initial_metadata(())
        while True:
            yield await events.get()

    def send(self, event):
        for events in self._streams:
            events.put_nowait(event.encode())

    @asynccontextmanager
    async def serving(self, *, tls=None):
        """Serve inside the block, which gets the port; by TLS with a certificate (`certificates.Pair`)."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self,))
        port = add_port(server, f"{HOST}:0", tls)
        await server.start()
        try:
            yield port
        finally:
            await server.stop(None)


class GrpcStream:
    """The client's side of one stream, on a connection of its own."""

    def __init__(self, channel, call):
        self._channel, self._call = channel, call

    @classmethod
    async def open(cls, port):
        channel = _channel(port)
        call = channel.unary_stream(STREAM)(b"")
        await call.initial_metadata()
        return cls(channel, call)

    async def event(self):
        """The next event; grpc.aio.AioRpcError if the stream was cut."""
        return (await asyncio.wait_for(self._call.read(), 10)).decode()

    async def close(self):
        await self._channel.close()


@asynccontextmanager
async def calls(port, pause=0.05):
    """One call after another through one channel; the block gets a Counter of their statuses."""
    answers = Counter()
    async with _channel(port) as channel:
        task = asyncio.create_task(_call_on(channel, answers, pause))
        try:
            yield answers
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _call_on(channel, answers, pause):
    while True:
        try:
            await channel.unary_unary(CALL)(b"", timeout=10)
            answers["OK"] += 1
        except grpc.aio.AioRpcError as error:
            answers[str(error)] += 1
        await asyncio.sleep(pause)


def _channel(port):
    # Channels of one process share connections, unless told not to.
    return grpc.aio.insecure_channel(f"{HOST}:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
