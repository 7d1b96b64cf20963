"""The bootstrap, given to a stock Envoy."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import re2
from aiohttp import ClientConnectionError, ClientSession

import bootstrap
from tests.support.envoy import running_envoy
from tests.support.processes import Children, clean_environment, free_ports
from tests.support.wait import wait_until

ENVOY = Path(sys.executable).with_name("envoy")
DEADLINE = 30


def validate(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENVOY, "--mode", "validate", "--config-path", config], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("address", ["127.0.0.1:18000", "[::1]:18000", "xdserve.example.com:18000"])
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_envoy_accepts_it(address: str, form: str, tmp_path: Path) -> None:
    made = bootstrap.render("models/iris", address, admin_address="127.0.0.1:0")
    config = tmp_path / f"envoy.{form}"
    config.write_text(bootstrap.to_yaml(made) if form == "yaml" else bootstrap.to_json(made))
    result = validate(config)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("OK")
    assert not re.search(r"\]\[(warning|error|critical)\]", result.stderr), result.stderr


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections: bound, so that nobody else gets it, and not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
async def admin(closed_port: int, tmp_path: Path) -> AsyncIterator[ClientSession]:
    """The admin interface of an Envoy whose server does not answer."""
    made = bootstrap.render("models/iris", f"127.0.0.1:{closed_port}", node_id="pod-1", admin_address="127.0.0.1:0")
    (tmp_path / "envoy.yaml").write_text(bootstrap.to_yaml(made))
    address = tmp_path / "admin"
    with (tmp_path / "log").open("wb") as log:
        envoy = await asyncio.create_subprocess_exec(
            ENVOY, "--config-path", tmp_path / "envoy.yaml", "--admin-address-path", address,
            "--concurrency", "1", "--disable-hot-restart", stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        await wait_until(lambda: address.exists() and address.read_text(), DEADLINE)
        async with ClientSession(f"http://{address.read_text()}") as session:
            yield session
    finally:
        os.killpg(envoy.pid, signal.SIGKILL)
        await envoy.wait()


async def text(admin: ClientSession, path: str) -> tuple[int, str]:
    async with admin.get(path) as response:
        return response.status, await response.text()


async def stat(admin: ClientSession, name: str) -> int | None:
    _, body = await text(admin, f"/stats?filter=^{re.escape(name)}$")
    return int(body.split(": ")[1]) if body else None


async def test_without_a_server_it_lives_and_is_not_ready(admin: ClientSession) -> None:
    async def has_tried() -> bool:
        try:
            return (await stat(admin, "cluster.xdserve.upstream_cx_connect_fail") or 0) >= 2
        except ClientConnectionError:
            return False

    await wait_until(has_tried, DEADLINE)
    status, body = await text(admin, "/ready")
    assert (status, body.strip()) == (503, "PRE_INITIALIZING")
    assert await stat(admin, "server.live") == 1
    assert await stat(admin, "control_plane.connected_state") == 0


async def test_it_is_who_it_was_told_to_be_and_keeps_the_useful_statistics(admin: ClientSession) -> None:
    async with admin.get("/server_info") as response:
        node = (await response.json())["node"]
    assert (node["id"], node["cluster"]) == ("pod-1", "models/iris")
    for kept in (
        "cluster.xdserve.upstream_rq_total",
        "cluster.xdserve.membership_healthy",
        "cluster_manager.cds.update_rejected",
        "listener_manager.lds.update_success",
        "http.admin.downstream_rq_2xx",
        "listener.admin.downstream_cx_active",
    ):
        assert await stat(admin, kept) is not None, kept
    for left_out in ("cluster.xdserve.upstream_cx_rx_bytes_total", "http.admin.downstream_cx_http3_total"):
        assert await stat(admin, left_out) is None, left_out


@pytest.mark.parametrize("ours", [True, False])
def test_it_reads_large_regular_expressions(*, ours: bool, tmp_path: Path) -> None:
    """Envoy's own limit would refuse what policies allow: whatever RE2 takes."""
    regex = r"\pL{300}"
    assert re2.compile(regex).programsize > 100_000
    made = bootstrap.render("models/iris", "127.0.0.1:18000", admin_address="127.0.0.1:0")
    made["static_resources"]["listeners"] = [listener_with_regex(regex)]
    if not ours:
        del made["layered_runtime"]
    config = tmp_path / "envoy.yaml"
    config.write_text(bootstrap.to_yaml(made))
    result = validate(config)
    assert (result.returncode == 0) is ours, result.stderr
    assert ours or "max program size" in result.stderr


def listener_with_regex(regex: str) -> dict[str, object]:
    route = {"match": {"safe_regex": {"regex": regex}}, "direct_response": {"status": 200}}
    http = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{http}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{http}.http.router.v3.Router"}}],
    }
    return {
        "name": "edge",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: iris, namespace: models}}
spec: {{predictor: {{}}}}
---
apiVersion: xdserve.io/v1alpha1
kind: ServiceGateway
metadata: {{name: iris, namespace: models}}
spec:
  targetRef: {{group: serving.kserve.io, kind: InferenceService, name: iris}}
  address: 127.0.0.1
  port: {port}
"""


XDSERVE = (sys.executable, "-m", "xdserve")
SEEN = (
    "xdserve_connected_envoys 1.0",
    'xdserve_acks_total{type="lds"} 1.0',
    'xdserve_streams_total{service="ads",variant="delta"} 1.0',
)


def printed_bootstrap(xds: int, admin: int) -> str:
    options = ("--gateway", "models/iris", "--node-id", "pod-1")
    addresses = ("--xds-address", f"localhost:{xds}", "--admin-address", f"127.0.0.1:{admin}")
    command = [*XDSERVE, "bootstrap", *options, *addresses]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=clean_environment()).stdout


async def test_with_a_server_it_is_ready_and_seen(tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    objects.mkdir()
    port, xds, admin, envoy_admin = free_ports(4)
    (objects / "iris.yaml").write_text(SERVICE.format(port=port))
    addresses = ("--xds-address", f"127.0.0.1:{xds}", "--admin-address", f"127.0.0.1:{admin}")
    serve = [*XDSERVE, "serve", "--source", str(objects), *addresses, "--no-last-good"]
    made = await asyncio.to_thread(printed_bootstrap, xds, envoy_admin)
    async with AsyncExitStack() as stack:
        children = stack.enter_context(Children(tmp_path))
        stack.enter_context(running_envoy(tmp_path, made, envoy_admin))
        envoy = await stack.enter_async_context(ClientSession(f"http://127.0.0.1:{envoy_admin}"))
        server = await stack.enter_async_context(ClientSession(f"http://127.0.0.1:{admin}"))
        await wait_until(lambda: answers(envoy, "/ready", 503), DEADLINE)  # it waits for its server

        running = children.start("serve", serve, clean_environment())
        await wait_until(lambda: answers(envoy, "/ready", 200), DEADLINE)
        await wait_until(lambda: has_node(server), DEADLINE)
        await wait_until(lambda: has_metrics(server), DEADLINE)

        running.stop()  # a server that is gone is no outage
        assert await stat(envoy, "listener_manager.total_listeners_active") == 1
        assert await answers(envoy, "/ready", 200)
        children.start("serve-again", serve, clean_environment())
        await wait_until(lambda: has_node(server), DEADLINE)


async def has_metrics(server: ClientSession) -> bool:
    _, metrics = await text(server, "/metrics")
    return all(f"\n{line}\n" in metrics for line in SEEN)


async def answers(client: ClientSession, path: str, status: int) -> bool:
    try:
        return (await text(client, path))[0] == status
    except ClientConnectionError:
        return False


async def has_node(server: ClientSession) -> bool:
    try:
        async with server.get("/debug/nodes") as response:
            streams = [node["stream"] for node in await response.json()]
            return [(stream["gateway"], stream["node_id"]) for stream in streams] == [("models/iris", "pod-1")]
    except ClientConnectionError:
        return False
