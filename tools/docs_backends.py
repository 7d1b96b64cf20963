"""The parts of docs/backends.md that are made from the code."""

from __future__ import annotations

from collections.abc import Sequence

from markdown_tables import code, table

from translator.plan import Protocol
from translator.planners.ports import APP_PROTOCOLS, GRPC_MARKS, TLS_MARKS

SPOKEN = {
    Protocol.HTTP: "HTTP/1.1 in plain text (`HTTP`)",
    Protocol.H2C: "HTTP/2 in plain text (`H2C`)",
    Protocol.HTTPS: "HTTP/1.1 by TLS (`HTTPS`)",
    Protocol.HTTP2: "HTTP/2 by TLS (`HTTP2`)",
}


def ports() -> str:
    """What is spoken to a port, by its appProtocol and by its name."""
    names = {
        Protocol.HTTP: "any other",
        Protocol.H2C: f"begins with `http2`, or holds {or_list(GRPC_MARKS)}",
        Protocol.HTTPS: f"begins with {or_list(TLS_MARKS)}",
        Protocol.HTTP2: "the last two at once, as `https-grpc`",
    }
    said = {one: [code(name) for name, speaks in APP_PROTOCOLS.items() if speaks is one] for one in Protocol}
    said[Protocol.HTTP] = ["any other"]
    return table(
        ("spoken", "appProtocol", "else, a name that"),
        ((SPOKEN[one], " ".join(said[one]) or "none", names[one]) for one in Protocol),
    )


def or_list(words: Sequence[str]) -> str:
    """Words as code, the last after an "or"."""
    return " or ".join(map(code, words))
