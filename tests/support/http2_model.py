"""A model server that speaks HTTP/2 for REST, in plain text or by TLS: an answer has the body of its request."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events

HOST = "127.0.0.1"


class Http2(asyncio.Protocol):
    """One connection."""

    def __init__(self, variant):
        self._variant = variant
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._bodies, self._answers = {}, {}

    def connection_made(self, transport):
        self._transport = transport
        self._http.initiate_connection()
        self._flush()

    def data_received(self, data):
        for event in self._http.receive_data(data):
            self._take(event)
        for stream in list(self._answers):
            self._send(stream)
        self._flush()

    def _take(self, event):
        stream = getattr(event, "stream_id", 0)
        if isinstance(event, h2.events.RequestReceived):
            self._bodies[stream] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self._bodies[stream] += event.data
            self._http.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, h2.events.StreamEnded):
            self._http.send_headers(stream, [(":status", "200"), ("x-variant", self._variant)])
            self._answers[stream] = self._bodies.pop(stream)

    def _send(self, stream):
        """As much as the other side takes now."""
        body = self._answers[stream]
        while body and (most := min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)):
            self._http.send_data(stream, bytes(body[:most]))
            del body[:most]
        if not body:
            self._http.end_stream(stream)
            del self._answers[stream]

    def _flush(self):
        self._transport.write(self._http.data_to_send())


@asynccontextmanager
async def http2_model(variant, *, ssl=None):
    """Serve inside the block, which gets the port."""
    server = await asyncio.get_running_loop().create_server(lambda: Http2(variant), HOST, 0, ssl=ssl)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
