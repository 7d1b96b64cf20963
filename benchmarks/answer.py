"""From an edit to the first answer by the new rule, through a real Envoy; and what Envoy itself takes for it.

The edit starts or stops a service, which turns the answer of its gateway's `/readyz` between 200 and 503: one changed
route configuration, and no model in the way. Envoy's own floor is the same route configuration from a file that it
watches itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bootstrap
from benchmarks import fleet
from benchmarks.ack import HELD, measure
from benchmarks.measure import Figure, quantile, resident
from benchmarks.plane import Plane, serving
from xds.types import ResourceType
from xds.wire import Resource, resource
from xdserve.demo.driver import Connection, connect
from xdserve.demo.envoy import Envoy, Launch, find, start
from xdserve.demo.processes import Child, Children, free_ports
from xdserve.demo.waiting import until
from xdserve.printing import printable
from xdserve.sources import Put

HOST = "127.0.0.1"
EDITS = 100
GATEWAY = f"{fleet.NAMESPACE}/{fleet.EDGE}"
Edits = dict[int, Callable[[], float]]
"""By the status of /readyz that they make; each says when it was made (perf_counter)."""

READY = b"GET /readyz HTTP/1.1\r\nhost: edge\r\n\r\n"
TYPED = "type.googleapis.com/envoy.service.discovery.v3.DiscoveryResponse"


async def first_answers(port: int, edits: Edits, count: int = EDITS) -> list[float]:
    """Seconds from each edit to the first answer with its status; one connection asks without a pause."""
    connection = await connect(HOST, port)
    seconds = []
    turn = cycle(edits.items())
    await _until_status(connection, 200)
    for _ in range(count):
        wanted, edit = next(turn)
        edited = edit()
        seconds.append(await _until_status(connection, wanted) - edited)
        # What the edit has set off besides, such as a second look at the file, shall not meet the next one.
        await asyncio.sleep(0.08)
    connection.close()
    return seconds


async def _until_status(connection: Connection, wanted: int) -> float:
    async with asyncio.timeout(10):
        while True:
            answer = await connection.ask(READY)
            if answer.status == wanted:
                return answer.at
            # What is measured may be in this very process: let it have its turn.
            await asyncio.sleep(0)


def launched(children: Children, config: str, admin: int, name: str) -> Envoy:
    """An Envoy with one worker, as dedicated gateways have."""
    return start(children, Launch(binary=find(), bootstrap=config, admin=f"{HOST}:{admin}", name=name))


def replacing(path: Path, text: str) -> Callable[[], float]:
    """An edit of a file, as editors and ConfigMaps make it: written beside, then renamed."""
    new = path.with_name(f".{path.name}.new")

    def replace() -> float:
        new.write_text(text)
        at = time.perf_counter()
        new.replace(path)
        return at

    return replace


def figure(name: str, seconds: list[float], note: str) -> Figure:
    """The median in milliseconds, the 99th percentile in the note."""
    return Figure(name, quantile(seconds, 0.5) * 1e3, "ms", "", f"{note}; p99 {quantile(seconds, 0.99) * 1e3:.1f} ms")


# -- The edge: one Envoy on a plane in this process ------------------------------------------------------------------


@dataclass
class Edge:
    """The gateway that has an Envoy."""

    plane: Plane
    port: int
    upstream: int
    clusters: tuple[Resource, Resource]

    def edits(self) -> Edits:
        """Objects as sources give them."""
        return {status: self._edit(fleet.puts([fleet.stopped(said=status == 503)])) for status in (503, 200)}

    def _edit(self, puts: list[Put]) -> Callable[[], float]:
        def edit() -> float:
            at = time.perf_counter()
            self.plane.apply(puts)
            return at

        return edit

    def publish(self) -> Callable[[], None]:
        """One cluster, of another connect timeout each time."""
        turn = cycle(self.clusters)
        return lambda: self.plane.server.publish(GATEWAY, [next(turn)])


def edge_of(plane: Plane, port: int, upstream: int) -> Edge:
    """Put the edge's objects into the plane."""
    plane.apply(fleet.puts(fleet.edge(port, upstream)))
    scope = plane.server.scope(GATEWAY)
    assert scope is not None
    held = scope.get(ResourceType.CLUSTER, f"{GATEWAY}/predictor")
    assert held is not None
    longer = held.body.replace(b"\x22\x02\x08\x02", b"\x22\x02\x08\x03")  # connect_timeout, 2 s -> 3 s
    assert longer != held.body
    return Edge(plane, port, upstream, (resource(held.type, held.name, longer), held))


async def _applied(children: Children, upstream: int) -> tuple[list[Figure], dict[str, float], str]:
    """Edits in this process, at each number of services held; the medians; the edge's routes as Envoy prints them."""
    figures: list[Figure] = []
    medians: dict[str, float] = {}
    port, admin = free_ports(2, HOST)
    async with serving() as (plane, xds):
        edge = edge_of(plane, port, upstream)
        config = bootstrap.render(GATEWAY, xds_address=f"{HOST}:{xds}", admin_address=f"{HOST}:{admin}")
        envoy = launched(children, bootstrap.to_json(config), admin, "edge")
        await envoy.wait_ready()
        figures += await _memory(envoy, port)
        for held in HELD:
            await plane.grow(held)
            answers = await first_answers(port, edge.edits())
            figures.append(figure("object -> first answer, median", answers, f"{held:,} services held"))
            medians[f"apply {held}"] = quantile(answers, 0.5)
        acks = await measure(plane, edge.publish(), ResourceType.CLUSTER, EDITS)
        figures.append(figure("publish of one cluster -> Envoy's ACK, median", acks, f"{HELD[-1]:,} services held"))
        routes = _routes(plane)
        envoy.child.stop()
    return figures, medians, routes


async def _memory(envoy: Envoy, port: int) -> list[Figure]:
    figures = [Figure("Envoy's memory, dedicated gateway, started", resident(_envoy_pid(envoy)) / 1e6, "MB")]
    connection = await connect(HOST, port)
    for _ in range(500):
        await connection.ask(READY)
    connection.close()
    after = resident(_envoy_pid(envoy)) / 1e6
    return [*figures, Figure("the same, after 500 requests", after, "MB", "", "--concurrency 1, the bootstrap's stats")]


def _envoy_pid(envoy: Envoy) -> int:
    """The child itself may be what ties Envoy to this process."""
    below = Path(f"/proc/{envoy.child.pid}/task/{envoy.child.pid}/children").read_text().split()
    return int(below[0]) if below else envoy.child.pid


def _routes(plane: Plane) -> str:
    scope = plane.server.scope(GATEWAY)
    assert scope is not None
    held = scope.get(ResourceType.ROUTE, GATEWAY)
    assert held is not None
    return json.dumps(printable(held))


# -- The program: edits of files -------------------------------------------------------------------------------------


async def _edited(children: Children, folder: Path, held: int, upstream: int) -> list[float]:
    """Edits of a file of a running `xdserve serve`."""
    source = folder / f"source-{held}"
    await asyncio.to_thread(fleet.write, source, held)
    port, xds, admin, envoy_admin = free_ports(4, HOST)
    file = source / "edge.yaml"
    isvc, *others = fleet.edge(port, upstream)
    file.write_text(fleet.text([isvc]))
    (source / "edge-others.yaml").write_text(fleet.text(others))
    command = ["serve", "--source", str(source), "--xds-address", f"{HOST}:{xds}", "--admin-address", f"{HOST}:{admin}"]
    command.append("--no-last-good")
    server = children.start(f"xdserve-{held}", [sys.executable, "-m", "xdserve", *command])
    await until(lambda: _is_ready(server, admin), "xdserve to be ready", 120.0, every=0.1)
    config = bootstrap.render(GATEWAY, xds_address=f"{HOST}:{xds}", admin_address=f"{HOST}:{envoy_admin}")
    envoy = launched(children, bootstrap.to_json(config), envoy_admin, f"edge-{held}")
    await envoy.wait_ready()
    edits = {status: replacing(file, fleet.text([fleet.stopped(said=status == 503)])) for status in (503, 200)}
    seconds = await first_answers(port, edits)
    envoy.child.stop()
    server.stop()
    return seconds


async def _is_ready(server: Child, admin: int) -> bool:
    server.check()
    try:
        connection = await connect(HOST, admin)
    except OSError:
        return False
    status = (await connection.ask(READY)).status
    connection.close()
    return status == 200


# -- Envoy's own floor -----------------------------------------------------------------------------------------------


async def _floor(children: Children, folder: Path, routes: str) -> list[float]:
    """The same routes, in a file that Envoy watches itself."""
    port, admin = free_ports(2, HOST)
    file = folder / "rds.json"
    texts = {200: _response(routes, "1"), 503: _response(_not_ready(routes), "2")}
    file.write_text(texts[200])
    launched_envoy = launched(children, json.dumps(_file_bootstrap(port, admin, file)), admin, "floor")
    await launched_envoy.wait_ready()
    seconds = await first_answers(port, {status: replacing(file, texts[status]) for status in (503, 200)})
    launched_envoy.child.stop()
    return seconds


def _not_ready(routes: str) -> str:
    found = json.loads(routes)
    for host in found["virtual_hosts"]:
        for route in host["routes"]:
            if route["name"] == "readyz":
                route["direct_response"]["status"] = 503
    return json.dumps(found)


def _response(routes: str, version: str) -> str:
    url = str(ResourceType.ROUTE)
    # The edge has one cluster, which a floor without xDS lacks: its routes shall not be checked for it.
    made = {"@type": url, **json.loads(routes), "validate_clusters": False}
    return json.dumps({"@type": TYPED, "version_info": version, "type_url": url, "resources": [made]})


def _file_bootstrap(port: int, admin: int, file: Path) -> dict[str, Any]:
    network = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    manager = {
        "@type": network,
        "stat_prefix": "gateway",
        "rds": {
            "route_config_name": GATEWAY,
            "config_source": {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"},
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "edge", "address": _address(port), "filter_chains": [chain]}
    return {
        "node": {"id": "floor", "cluster": GATEWAY},
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


# -- All of it -------------------------------------------------------------------------------------------------------


async def _run() -> list[Figure]:
    with TemporaryDirectory(prefix="xdserve-bench-") as name, Children(Path(name)) as children:
        folder = Path(name)
        (upstream,) = free_ports(1, HOST)
        figures, medians, routes = await _applied(children, upstream)
        for held in HELD:
            seconds = await _edited(children, folder, held, upstream)
            figures.append(figure("file -> first answer, median", seconds, f"{held:,} services held"))
            medians[f"file {held}"] = quantile(seconds, 0.5)
        floor = await _floor(children, folder, routes)
        figures.append(figure("the same by Envoy's own file source, median", floor, "the floor"))
    lowest = quantile(floor, 0.5)
    for kind, word in (("apply", "object"), ("file", "file")):
        most, least = medians[f"{kind} {HELD[-1]}"], medians[f"{kind} {HELD[0]}"]
        figures.append(Figure(f"{word} -> first answer, {HELD[-1]:,} over {HELD[0]} held", most / least, "x", "~ 1"))
        figures.append(Figure(f"{word} -> first answer over Envoy's floor", most / lowest, "x", "< 1.5"))
    return figures


def figures() -> list[Figure]:
    """The lines of the table."""
    return asyncio.run(_run())
