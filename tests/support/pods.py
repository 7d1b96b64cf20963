"""Pods of a model server that die at once, as by SIGKILL: HTTP/1.1 and gRPC, each pod at a loopback address of its own.

A pod logs the number of each request whose head has come to it, and of each that it has answered. It reads from its
sockets by itself, so that no head waits unseen in them when it dies; and of a dead pod they go on reading until the
other side has closed them, so that what crossed with the death is known too.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import contextmanager, suppress
from itertools import count
from zlib import crc32

import h2.config
import h2.connection
import h2.events

from tests.support.documents import endpoints, service
from tests.support.envoy import pick_ports

NUMBER = "x-number"
THINKING = (0.01, 0.05)
_CHUNK = 1 << 20
_BACKLOG = 1024


def said(body):
    """The answer of a model to a body that it got whole."""
    return f"{len(body)} {crc32(body)}"


class Pod:
    """A running model server: `begun` and `finished` are its log, in numbers of requests.

    `late` are those of `begun` that came over an open connection when the pod was dead already.
    """

    def __init__(self, host, http_port, grpc_port):
        self.host, self.dead = host, False
        self.begun, self.finished, self.late = [], [], []
        self._connections, self._listeners = set(), []
        for port, kind in ((http_port, Http), (grpc_port, Grpc)):
            self._listen(port, kind)

    @property
    def lost(self):
        """The requests in flight when it died."""
        return set(self.begun) - set(self.finished)

    def begin(self, number):
        self.begun.append(number)
        if self.dead:
            self.late.append(number)

    def kill(self):
        """Nobody listens from now on, nothing is answered, and the other side sees the end of its connections."""
        for listener, kind in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            self._accept(listener, kind)
            listener.close()
        for connection in self._connections:
            connection.cut()
        self.dead = True

    def close(self):
        """Also on this side nothing is left."""
        if not self.dead:
            self.kill()
        for connection in list(self._connections):
            connection.close()

    def forget(self, connection):
        self._connections.discard(connection)

    def _listen(self, port, kind):
        listener = socket.create_server((self.host, port), backlog=_BACKLOG)
        listener.settimeout(0)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener, kind)
        self._listeners.append((listener, kind))

    def _accept(self, listener, kind):
        """All who wait."""
        with suppress(BlockingIOError):
            while True:
                self._connections.add(kind(self, listener.accept()[0]))


class Connection:
    """A connection of a pod; `received` of a subclass takes what has come."""

    def __init__(self, pod, accepted):
        self._pod, self._socket = pod, accepted
        self._loop = asyncio.get_running_loop()
        accepted.settimeout(0)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(accepted, self._readable)

    def received(self, data):
        raise NotImplementedError

    def cut(self):
        """The end, as the other side sees it; what has come by now is read."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        with suppress(BlockingIOError):
            while self._read():
                pass

    def close(self):
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._pod.forget(self)

    def _readable(self):
        with suppress(BlockingIOError):  # the death has read it already
            if not self._read():
                self.close()

    def _read(self):
        """Take what there is; false at the end of the connection."""
        try:
            data = self._socket.recv(_CHUNK)
        except ConnectionError:
            return False
        if data:
            self.received(data)
        return bool(data)

    def _send(self, data):
        """Answers are short: they fit into the socket's buffer."""
        with suppress(ConnectionError):
            sent = self._socket.send(data)
            assert sent == len(data)

    def _think(self, answer, *arguments):
        self._loop.call_later(random.uniform(*THINKING), self._unless_dead, answer, arguments)

    def _unless_dead(self, answer, arguments):
        if not self._pod.dead and self._socket.fileno() >= 0:
            self._pod.finished.append(answer(*arguments))


class Http(Connection):
    """HTTP/1.1, as much of it as an Envoy sends: requests one by one, their length known."""

    def __init__(self, pod, accepted):
        super().__init__(pod, accepted)
        self._buffer, self._request = bytearray(), None

    def received(self, data):
        self._buffer += data
        if self._request is None and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            self._request = self._head(self._buffer[:end].decode())
            del self._buffer[: end + 4]
        if self._request and len(self._buffer) >= self._request[1]:
            (number, _), self._request = self._request, None
            self._think(self._answer, number, said(self._buffer))
            self._buffer = bytearray()

    def _head(self, text):
        """Number and length of a request."""
        headers = dict(line.lower().split(": ", 1) for line in text.split("\r\n")[1:])
        number = int(headers[NUMBER])
        self._pod.begin(number)
        return number, int(headers["content-length"])

    def _answer(self, number, text):
        self._send(f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
        return number


class Grpc(Connection):
    """gRPC: any unary method."""

    def __init__(self, pod, accepted):
        super().__init__(pod, accepted)
        settings = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._http = h2.connection.H2Connection(settings)
        self._calls = {}
        self._http.initiate_connection()
        self._send(self._http.data_to_send())

    def received(self, data):
        for event in self._http.receive_data(data):
            self._take(event)
        self._send(self._http.data_to_send())

    def _take(self, event):
        stream = getattr(event, "stream_id", 0)
        if isinstance(event, h2.events.RequestReceived):
            number = int(dict(event.headers)[NUMBER])
            self._pod.begin(number)
            self._calls[stream] = number, bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self._calls[stream][1].extend(event.data)
            self._http.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, h2.events.StreamEnded):
            self._think(self._answer, stream)

    def _answer(self, stream):
        number, message = self._calls.pop(stream)
        text = said(message[5:]).encode()
        self._http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self._http.send_data(stream, struct.pack("!BI", 0, len(text)) + text)
        self._http.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        self._send(self._http.data_to_send())
        return number


class Pods:
    """The pods of one Service: those that are `up`, and all that there have `ever` been."""

    def __init__(self, name):
        self._name = name
        self._ports = pick_ports(2)
        self._hosts = (f"127.0.{8 + number // 250}.{number % 250 + 1}" for number in count())
        self.up, self.ever = [], []

    def start(self, many=1):
        """So many more, at addresses that none has had."""
        new = [Pod(next(self._hosts), *self._ports) for _ in range(many)]
        self.up += new
        self.ever += new
        return new

    def kill(self, pods):
        """All at once."""
        for pod in pods:
            pod.kill()
            self.up.remove(pod)

    def service(self):
        """The Service, with a port for each protocol."""
        return service(self._name, http=80, grpc=9000)

    def slice(self, also=()):
        """The EndpointSlice of those that are up, and of others that have not left it yet."""
        http_port, grpc_port = self._ports
        document = endpoints(self._name, http_port, port_name="http")
        document["ports"].append({"name": "grpc", "port": grpc_port, "protocol": "TCP"})
        conditions = {"ready": True}
        listed = [{"addresses": [pod.host], "conditions": conditions} for pod in (*self.up, *also)]
        return document | {"endpoints": listed}


@contextmanager
def running_pods(name, many):
    """Pods of a Service inside the block."""
    pods = Pods(name)
    pods.start(many)
    try:
        yield pods
    finally:
        for pod in pods.ever:
            pod.close()
