"""The metrics of each gateway. There may be many gateways, so their text is made in slices, beside the library.

The names in their labels are those of gateways and backends that the program itself has, never one that a client chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from translator import names
from xds.loads import Load
from xdserve.pauses import Pauses

SUCCESS, ERROR = "success", "error"


class Family(NamedTuple):
    """A metric: its name in full, its type, what it counts, and its labels with their values where these are closed."""

    name: str
    kind: str
    text: str
    labels: Mapping[str, tuple[str, ...]]

    @property
    def head(self) -> str:
        """The lines before its samples."""
        return f"# HELP {self.name} {self.text}\n# TYPE {self.name} {self.kind}\n"


CONNECTED = Family(
    "xdserve_gateway_connected_envoys", "gauge", "Envoys that are connected, by gateway", {"gateway": ()}
)
REQUESTS = Family(
    "xdserve_backend_requests_total",
    "counter",
    "Requests to a backend that were answered, as its Envoys report them",
    {"gateway": (), "backend": (), "outcome": (SUCCESS, ERROR)},
)
IN_FLIGHT = Family(
    "xdserve_backend_requests_in_flight",
    "gauge",
    "Requests to a backend that wait for their answer, as its Envoys report them",
    {"gateway": (), "backend": ()},
)
DROPPED = Family(
    "xdserve_backend_dropped_total",
    "counter",
    "Requests that Envoys dropped before they had an endpoint of the backend",
    {"gateway": (), "backend": ()},
)
FAMILIES = (CONNECTED, REQUESTS, IN_FLIGHT, DROPPED)


class GatewaySeries:
    """Reads the figures of each gateway when it is asked.

    Args:
        gateways: the names of all gateways that have resources.
        connected: how many Envoys a gateway has.
        loads: the load reports of a gateway, by cluster.
    """

    def __init__(
        self,
        gateways: Callable[[], Iterable[str]],
        connected: Callable[[str], int],
        loads: Callable[[str], Mapping[str, Load]],
    ) -> None:
        self._gateways, self._connected, self._loads = gateways, connected, loads

    async def render(self) -> bytes:
        """All of them in the text format of Prometheus."""
        lines: dict[str, list[str]] = {family.name: [family.head] for family in FAMILIES}
        pauses = Pauses()
        for gateway in tuple(self._gateways()):
            self._add(gateway, lines)
            if pauses.due:
                await pauses.take()
        parts = []
        for family in FAMILIES:
            parts.append("".join(lines.pop(family.name)).encode())
            await pauses.take()
        return b"".join(parts)

    def _add(self, gateway: str, lines: dict[str, list[str]]) -> None:
        of = f'{{gateway="{_escaped(gateway)}"'
        lines[CONNECTED.name].append(f"{CONNECTED.name}{of}}} {self._connected(gateway)}\n")
        for cluster, load in self._loads(gateway).items():
            to = f'{of},backend="{_escaped(names.backend(cluster))}"'
            lines[REQUESTS.name].append(
                f'{REQUESTS.name}{to},outcome="{SUCCESS}"}} {load.successes}\n'
                f'{REQUESTS.name}{to},outcome="{ERROR}"}} {load.errors}\n'
            )
            lines[IN_FLIGHT.name].append(f"{IN_FLIGHT.name}{to}}} {load.in_flight}\n")
            lines[DROPPED.name].append(f"{DROPPED.name}{to}}} {load.dropped}\n")


def _escaped(value: str) -> str:
    """A label's value in the text format."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
