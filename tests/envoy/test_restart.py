"""The control plane dies and comes back, and so does Envoy: nobody who asks for predictions notices."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.envoy import pick_ports
from tests.support.plane import IRIS, Gateway, control_plane, gateway
from tests.support.serve import Serve
from tests.support.wait import wait_until
from xdserve.demo.driver import Traffic, post

BACKENDS = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')
ONCE = {"cds": 3, "eds": 3, "lds": 1, "rds": 1}


def shares(stable, v2):
    return policy(backends=BACKENDS, split=split(stable=stable, v2=v2))


@pytest_asyncio.fixture
async def served(tmp_path, model_servers):
    """A running `xdserve serve`, its Envoy with everything, and the split 90 to 10."""
    (port,) = pick_ports(1)
    with Serve(tmp_path, "--linger", "0.2") as serve:
        models = backend("iris-predictor", model_servers["stable"].port)
        models += backend("iris-v2-predictor", model_servers["v2"].port)
        serve.write("iris.yaml", isvc(), *models, entrance(port))
        serve.write("policy.yaml", shares(90, 10))
        await serve.started()
        async with gateway(serve, tmp_path, port, ready=False) as started:
            await started.envoy.wait_ready()
            await wait_until(serve.programmed, 20, "the gateway to be programmed")
            yield serve, started


async def asked_again(served):
    """Wait until Envoy has asked for its configuration once more, and was refused."""
    started: Gateway = served[1]
    pattern = "^cluster.xdserve.upstream_rq_completed$"

    async def count():
        return sum((await started.envoy.stats(pattern)).values())

    before = await count()

    async def asked():
        return await count() > before

    await wait_until(asked, 30, "Envoy to ask again")


async def connected_again(serve):
    async def connected():
        return len(await serve.json("/debug/nodes")) == 1

    await wait_until(connected, 30, "Envoy to connect again")


async def reconnected(serve):
    await connected_again(serve)
    await wait_until(serve.programmed, 20, "the gateway to be programmed")


async def test_a_crash_is_no_outage_and_a_restart_sends_nothing_again(served):
    serve, started = served
    assert await serve.metric("resources_sent_total") == ONCE
    versions = await serve.versions()
    traffic = Traffic("127.0.0.1", started.port, REQUEST, connections=4, pause=0.002)
    async with traffic.running():
        serve.kill()
        await traffic.until(traffic.count(), requests=300)
        await serve.started()
        await reconnected(serve)
        assert await serve.versions() == versions
        assert await serve.metric("resources_sent_total") == {}
        serve.write("policy.yaml", shares(50, 50))
        await wait_until(lambda: sent(serve), 20, "the edit to be sent")
        await wait_until(serve.programmed, 20, "the edit to be in force")
        assert await serve.metric("resources_sent_total") == {"rds": 1}
        assert await serve.metric("resources_removed_total") == {}
        assert traffic.failed == 0


async def sent(serve):
    return await serve.metric("resources_sent_total")


async def test_what_was_edited_meanwhile_is_sent_and_nothing_else(served):
    serve, started = served
    serve.kill()
    serve.write("policy.yaml", shares(0, 100))
    await serve.started()
    await reconnected(serve)
    assert await serve.metric("resources_sent_total") == {"rds": 1}
    assert {await started.variant() for _ in range(20)} == {"v2"}


async def test_what_was_deleted_meanwhile_goes(served):
    serve, started = served
    assert "models/iris/v2" in await started.clusters()
    serve.kill()
    serve.write("policy.yaml", policy(backends=BACKENDS[:1], split=split(stable=1)))
    await serve.started()

    async def gone():
        return "models/iris/v2" not in await started.clusters()

    await wait_until(gone, 30, "the cluster to go")
    assert {await started.variant() for _ in range(20)} == {"stable"}


async def test_an_envoy_that_starts_anew_gets_everything(served, tmp_path):
    serve, started = served
    started.envoy.child.kill()
    async with gateway(serve, tmp_path, started.port, ready=False, label="second") as again:
        await again.envoy.wait_ready()
        assert await again.variant() in {"stable", "v2"}

    assert await serve.metric("resources_sent_total") == {kind: 2 * count for kind, count in ONCE.items()}


async def test_an_envoy_that_was_there_first_waits_and_is_not_ready(tmp_path, model_servers):
    (port,) = pick_ports(1)
    with Serve(tmp_path) as serve:
        async with gateway(serve, tmp_path, port, ready=False) as started:
            await wait_until(started.envoy.live, 20, "Envoy to live")
            assert not await started.envoy.ready()
            serve.write("iris.yaml", isvc(), *backend("iris-predictor", model_servers["stable"].port), entrance(port))
            await serve.started()
            await started.envoy.wait_ready()
            assert await started.variant() == "stable"


async def test_a_server_that_finds_nothing_empties_no_envoy(served):
    """Started again on a directory that is not filled yet."""
    serve, started = served
    files = {path: path.read_text() for path in serve.objects.iterdir()}
    serve.kill()
    for path in files:
        path.unlink()
    await serve.started()
    await connected_again(serve)
    assert await serve.metric("responses_total") == {}
    assert await started.variant() in {"stable", "v2"}
    for path, text in files.items():
        serve.write_text(path.name, text)
    await wait_until(serve.programmed, 20, "everything to be acknowledged again")
    assert await serve.metric("resources_removed_total") == {}
    assert await started.variant() in {"stable", "v2"}


async def test_a_server_that_does_not_know_everything_yet_empties_no_envoy(tmp_path, model_servers):
    port, xds = pick_ports(2)
    documents = [isvc(), backend("iris-predictor", model_servers["stable"].port), entrance(port)]
    async with control_plane(port=xds) as first:
        first.put(*documents)
        async with gateway(first, tmp_path, port) as started:
            await first.server.stop(0.1)
            async with control_plane(port=xds, opened=False) as second:
                await asked_again((second, started))
                assert second.server.nodes() == []
                assert await started.variant() == "stable"
                second.put(*documents)
                second.server.open()
                await wait_until(second.programmed, 30, "Envoy to be back")
                assert second.sent().total() == 0
                assert await started.variant() == "stable"


@pytest.mark.parametrize("signal", ["stop", "kill"])
async def test_an_envoy_that_leaves_is_forgotten(served, signal):
    serve, started = served
    getattr(started.envoy.child, signal)()

    async def forgotten():
        return not await serve.json("/debug/nodes")

    await wait_until(forgotten, 20, "the Envoy to be forgotten")
    assert (await serve.conditions(f"InferenceService {IRIS}"))["xdserve.io/GatewayProgrammed"] == (
        "Unknown",
        "NoGateway",
    )
