"""What the ports of a Service speak, and which of them takes REST and which gRPC."""

from __future__ import annotations

from collections.abc import Sequence

from translator.objects.core import ServicePort
from translator.plan import Protocol

MAIN_PORT = 80
"""KServe gives a component's Service port 80 for the first container port."""

APP_PROTOCOLS = {
    **dict.fromkeys(("kubernetes.io/h2c", "h2c", "http2", "grpc"), Protocol.H2C),
    **dict.fromkeys(("https", "tls", "wss", "kubernetes.io/wss"), Protocol.HTTPS),
}
"""By appProtocol in lower case; any other one is HTTP. `http2` is as Istio has it: by plain text."""

GRPC_MARKS = ("grpc", "h2c")
"""KServe marks a port whose name holds one of these with appProtocol ``kubernetes.io/h2c``."""

TLS_MARKS = ("https", "tls")
"""What the name of a port with TLS begins with."""

_BY_NAME = {
    (False, False): Protocol.HTTP,
    (False, True): Protocol.H2C,
    (True, False): Protocol.HTTPS,
    (True, True): Protocol.HTTP2,
}
"""By whether the name of a port says TLS, and whether it says HTTP/2."""


def protocol_of(port: ServicePort) -> Protocol:
    """What a port speaks: its appProtocol says it, else its name."""
    if port.app_protocol:
        return APP_PROTOCOLS.get(port.app_protocol.lower(), Protocol.HTTP)
    name = port.name.lower()
    http2 = name.startswith("http2") or GRPC_MARKS[0] in name or GRPC_MARKS[1] in name
    return _BY_NAME[name.startswith(TLS_MARKS), http2]


def rest_port(ports: Sequence[ServicePort]) -> ServicePort | None:
    """The port for REST; None if there is no port.

    Port 80, else the first port named ``http*``, else the first one; of those that do not speak gRPC. If all do, it is
    the first of them, where gRPC goes too.
    """
    if len(ports) == 1:
        return ports[0]
    rest = [port for port in ports if not protocol_of(port).http2]
    if not rest:
        return next(iter(ports), None)
    named = (port for port in rest if port.name.lower().startswith("http"))
    return numbered(rest, MAIN_PORT) or next(named, None) or rest[0]


def grpc_port(ports: Sequence[ServicePort]) -> ServicePort | None:
    """The first port that speaks gRPC; None if there is none."""
    return next((port for port in ports if protocol_of(port).http2), None)


def numbered(ports: Sequence[ServicePort], number: int) -> ServicePort | None:
    """The port of a number."""
    return next((port for port in ports if port.port == number), None)


def with_tls(ports: Sequence[ServicePort]) -> list[ServicePort]:
    """The ports that are spoken to by TLS."""
    return [port for port in ports if protocol_of(port).tls]
