"""The server over real gRPC: who is let in, what ends a stream, and that no stream harms another."""

from __future__ import annotations

import asyncio
import gc

import grpc
import pytest

from tests.stream.rig import GATEWAY, Client, Record
from tests.support.model_envoy import make
from tests.support.streams import DELTA_ADS
from tests.support.wait import wait_until as until
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest
from xds.loads import METHOD, SERVICE
from xds.server import Consent, Server
from xds.session import Acknowledged, Terms
from xds.types import ResourceType
from xds.wire import encode, resource

CLUSTER, ENDPOINT = ResourceType.CLUSTER, ResourceType.ENDPOINT
LISTENER, ROUTE = ResourceType.LISTENER, ResourceType.ROUTE
LRS = f"/{SERVICE}/{METHOD}"


class TestWhoIsLetIn:
    async def test_nobody_before_the_server_knows_its_gateways(self, rig):
        closed = Server(Terms(identifier="closed", linger=0), rig.record)
        port = await closed.start("127.0.0.1:0")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            code, message = await Client(channel).end()
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "does not know its gateways yet" in message
            closed.open()
            closed.publish(GATEWAY, ())
            client = Client(channel)
            await client.say(CLUSTER, gateway=GATEWAY)
            assert (await client.get()).resources == []
        await closed.stop(1)

    @pytest.mark.parametrize("cluster", ["", "iris", "/iris", "models/", "a/b/c", "a b/c", "a/\x1b[31m"])
    async def test_a_node_must_say_its_gateway(self, rig, cluster):
        client = rig.client()
        await client.say(CLUSTER, gateway=cluster)
        code, message = await client.end()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message == f"node.cluster is {cluster!r}; wanted: <namespace>/<name>"
        assert rig.record.refusals == {"INVALID_ARGUMENT": 1}

    async def test_an_endless_name_is_not_repeated_to_its_client(self, rig):
        client = rig.client()
        await client.say(CLUSTER, gateway="a" * 300_000)
        code, message = await client.end()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert len(message) < 400

    async def test_more_names_than_anybody_needs(self, rig):
        client = rig.client()
        await client.say(ENDPOINT, [str(number) for number in range(100_001)], gateway=GATEWAY)
        assert (await client.end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_a_first_request_without_a_node(self, rig):
        client = rig.client()
        await client.say(CLUSTER)
        assert (await client.end())[0] is grpc.StatusCode.INVALID_ARGUMENT

    async def test_an_envoy_may_come_before_its_gateway_and_keeps_what_it_has_until_then(self, rig):
        client = rig.client()
        await client.say(CLUSTER, gateway="models/later", initial={"a": "1", "b": "1"})
        await until(lambda: rig.server.connected("models/later"))
        assert rig.record.responses == []
        rig.server.publish("models/later", [make(CLUSTER, "b")])
        answer = await client.get()
        assert [entry.name for entry in answer.resources] == ["b"]
        assert [stream.known for stream in rig.record.streams] == [False]

    async def test_a_name_that_nobody_published_is_kept_no_longer_than_its_stream(self, rig):
        client = rig.client()
        await client.say(CLUSTER, gateway="models/nobody")
        await until(lambda: rig.server.scope("models/nobody") is not None)
        client.call.cancel()
        await until(lambda: rig.server.scope("models/nobody") is None)


class TestWhatEndsAStream:
    @pytest.mark.parametrize("late", [False, True])
    async def test_bytes_that_are_no_request_end_that_stream_alone(self, rig, late):
        other = await rig.connected()
        client = await rig.connected() if late else rig.client()
        await client.raw(b"\x0a\xff")
        code, message = await client.end()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message.startswith("not a DeltaDiscoveryRequest: ")
        rig.server.publish(GATEWAY, [make(CLUSTER, "b")])
        assert [entry.name for entry in (await other.get()).resources] == ["b"]

    async def test_a_request_without_a_type(self, rig):
        client = await rig.connected()
        await client.say("")
        assert (await client.end())[0] is grpc.StatusCode.INVALID_ARGUMENT

    async def test_a_client_that_is_done(self, rig):
        client = await rig.connected()
        await client.call.done_writing()
        assert await client.end() == (grpc.StatusCode.OK, "")
        await until(lambda: not rig.server.nodes())

    async def test_a_client_that_says_nothing_and_goes(self, rig):
        client = rig.client()
        await client.call.done_writing()
        assert (await client.end())[0] is grpc.StatusCode.OK
        assert rig.record.streams == []

    async def test_a_server_that_stops(self, rig):
        clients = [await rig.connected() for _ in range(3)]
        await rig.server.stop(10)
        for client in clients:
            code, message = await client.end()
            assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "this server is going down")
        assert rig.server.nodes() == []

    async def test_an_address_in_use_is_an_error(self, rig):
        second = Server(Terms(identifier="second", linger=0), Record())
        with pytest.raises(OSError, match=rf"cannot listen at 127\.0\.0\.1:{rig.port}"):
            await second.start(f"127.0.0.1:{rig.port}")


class TestLargeRequests:
    async def test_20_mib_of_versions_are_read(self, rig):
        """What an Envoy with 90,000 resources says when it reconnects."""
        client = rig.client()
        node = Node(id="envoy", cluster=GATEWAY)
        parts = [encode(DeltaDiscoveryRequest(node=node, type_url=ENDPOINT, resource_names_subscribe=["a"]))]
        for number in range(90_000):
            versions = {f"cluster-{number:06}": "v" * 200}
            parts.append(encode(DeltaDiscoveryRequest(initial_resource_versions=versions)))
        await client.raw(b"".join(parts))
        assert (await client.get()).removed_resources == ["a"]

    async def test_more_than_32_mib_are_refused(self, rig):
        other = await rig.connected()
        client = rig.client()
        await client.raw(bytes(33 * 1024 * 1024))
        assert (await client.end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        rig.server.publish(GATEWAY, [make(CLUSTER, "b")])
        assert (await other.get()).resources[0].name == "b"


class TestStreamsSideBySide:
    async def test_two_on_one_gateway_get_the_same(self, rig):
        one, two = await rig.connected(), await rig.connected()
        rig.server.publish(GATEWAY, [make(CLUSTER, "b")])
        first, second = await one.get(), await two.get()
        assert first.resources[0].version == second.resources[0].version
        assert first.nonce != second.nonce

    async def test_gateways_are_apart(self, rig):
        rig.server.publish("models/other", ())
        mine, other = await rig.connected(), await rig.connected("models/other")
        rig.server.publish("models/other", [make(CLUSTER, "theirs")])
        assert (await other.get()).resources[0].name == "theirs"
        rig.server.publish(GATEWAY, [make(CLUSTER, "mine")])
        assert [entry.name for entry in (await mine.get()).resources] == ["mine"]

    async def test_one_that_never_reads_holds_up_itself_alone(self, rig):
        reader = await rig.connected()
        stuck = Client(rig.channel(options=(("grpc.http2.lookahead_bytes", 1 << 16),)))
        await stuck.say(LISTENER, gateway=GATEWAY, node_id="stuck")
        for type_ in (CLUSTER, ROUTE, ENDPOINT):
            await stuck.say(type_, ["*"])
        big = [resource(LISTENER, f"big-{i}", bytes([i]) * 1_500_000) for i in range(20)]
        rig.server.publish(GATEWAY, big)
        for rev in range(50):
            rig.server.publish(GATEWAY, [make(CLUSTER, "b", rev)])
            response = await reader.get()
            await reader.ack(response)
        assert rig.server.connected(GATEWAY) == 2
        written = [response for stream, response in rig.record.responses if stream.node_id == "stuck"]
        assert len(written) <= len(ResourceType)

    async def test_one_that_never_reads_is_cut_when_the_server_stops(self, rig):
        stuck = rig.client()
        rig.server.publish(GATEWAY, [resource(LISTENER, "big", bytes(50_000_000))])
        await stuck.say(LISTENER, gateway=GATEWAY)
        await until(lambda: rig.record.responses)
        await rig.server.stop(0.05)
        await until(lambda: not rig.server.nodes())

    async def test_a_bug_of_ours_ends_one_stream_and_is_logged(self, rig, caplog, monkeypatch):
        other, client = await rig.connected(), await rig.connected()

        def fail(stream, event):
            raise ZeroDivisionError("our bug")

        with monkeypatch.context() as patch:
            patch.setattr(rig.record, "event", fail)
            await client.say(LISTENER)
            assert await client.end() == (grpc.StatusCode.INTERNAL, "internal error")
        assert "ZeroDivisionError: our bug" in caplog.text
        assert (rig.record.refusals, rig.record.words) == ({"INTERNAL": 1}, ["internal error"])
        rig.server.publish(GATEWAY, [make(CLUSTER, "b")])
        assert (await other.get()).resources[0].name == "b"

    @pytest.mark.parametrize("path", [DELTA_ADS, LRS])
    async def test_a_bug_of_ours_in_a_first_request_too(self, rig, caplog, monkeypatch, path):
        other = await rig.connected()

        def fail(*_, **__):
            raise ExceptionGroup("several", [ZeroDivisionError("our bug")])

        with monkeypatch.context() as patch:
            patch.setattr("xds.gateway.Gateway.receive", fail)
            patch.setattr("xds.loads.Loads.take", fail)
            client = rig.client(path)
            node = Node(id="envoy", cluster=GATEWAY)
            delta = DeltaDiscoveryRequest(node=node, type_url=LISTENER)
            await client.raw(encode(LoadStatsRequest(node=node) if path == LRS else delta))
            assert await client.end() == (grpc.StatusCode.INTERNAL, "internal error")
        assert "ZeroDivisionError: our bug" in caplog.text
        assert rig.record.refusals == {"INTERNAL": 1}
        await until(lambda: rig.server.connected(GATEWAY) == 1 and not rig.arriving)
        rig.server.publish(GATEWAY, [make(CLUSTER, "b")])
        assert (await other.get()).resources[0].name == "b"

    async def test_a_publish_storm_is_coalesced(self, rig):
        client = await rig.connected()
        before = len(rig.record.responses)
        rig.server.publish(GATEWAY, [make(CLUSTER, "b", -1)])
        flying = await client.get()
        for rev in range(1000):
            rig.server.publish(GATEWAY, [make(CLUSTER, "b", rev)])
            await asyncio.sleep(0)
        await client.ack(flying)
        last = await client.get()
        assert last.resources[0].version == make(CLUSTER, "b", 999).version
        await client.ack(last)
        await until(lambda: not rig.server.nodes()[0].types[0].in_flight)
        assert len(rig.record.responses) - before == 2

    async def test_a_reconnect_gets_nothing_twice(self, rig):
        client = rig.client()
        versions = await client.take(CLUSTER, gateway=GATEWAY)
        client.call.cancel()
        again = rig.client()
        await again.say(CLUSTER, gateway=GATEWAY, initial=versions)
        response = await again.get()
        assert (response.resources, response.removed_resources) == ([], [])
        assert response.control_plane.identifier == "xdserve-test"

    async def test_a_cluster_is_removed_when_its_linger_is_over_without_anything_else_happening(self, rig):
        client = await rig.connected()
        rig.server.publish(GATEWAY, [], [(CLUSTER, "a")])
        assert (await client.get()).removed_resources == ["a"]


class TestWhatIsTold:
    async def test_consent(self, rig):
        version = rig.server.scope(GATEWAY).get(CLUSTER, "a").version

        def consent():
            return rig.server.acknowledged(GATEWAY, CLUSTER, "a", version)

        assert rig.server.acknowledged("models/none", CLUSTER, "a", version) is Consent.NO_ENVOY
        assert consent() is Consent.NO_ENVOY
        first = await rig.connected()
        await until(lambda: consent() is Consent.ALL)
        second = rig.client()
        await second.say(CLUSTER, gateway=GATEWAY)
        response = await second.get()
        assert consent() is Consent.SOME
        await second.ack(response)
        await until(lambda: consent() is Consent.ALL)
        assert rig.server.acknowledged(GATEWAY, CLUSTER, "a", "other") is Consent.NONE
        first.call.cancel()
        second.call.cancel()
        await until(lambda: consent() is Consent.NO_ENVOY)

    async def test_nodes(self, rig):
        client = await rig.connected()
        rig.server.publish(GATEWAY, [make(ROUTE, "r", 0, ["b"]), make(CLUSTER, "b")])
        await client.say(ROUTE, ["r"])
        flying = await client.get()
        await until(lambda: len(rig.server.nodes()[0].types) == 2)
        [node] = rig.server.nodes()
        assert (node.stream.node_id, node.stream.gateway) == ("envoy", GATEWAY)
        assert node.stream.user_agent == "test 1"
        assert node.stream.peer.startswith("ipv4:127.0.0.1:")
        clusters, routes = node.types
        assert (clusters.wildcard, clusters.in_flight) == (True, (flying.nonce,))
        assert set(clusters.acknowledged) == {"a"}
        assert set(clusters.sent) == {"a", "b"}
        assert (routes.subscribed, routes.waiting) == (1, {"r": "ACK of cluster b"})

    async def test_the_observer_sees_all(self, rig):
        client = await rig.connected()
        client.call.cancel()
        await until(lambda: rig.record.gone)
        assert rig.record.gone == rig.record.streams
        [(_, response)] = rig.record.responses
        assert (response.type, response.resources, response.removed) == (CLUSTER, 1, 0)
        acks = [event for _, event in rig.record.events if isinstance(event, Acknowledged)]
        assert [ack.versions.keys() for ack in acks] == [{"a"}]
        assert acks[0].seconds > 0

    async def test_forgotten_gateways_are_emptied_and_released(self, rig):
        client = await rig.connected()
        rig.server.forget(GATEWAY)
        rig.server.forget("models/none")
        assert (await client.get()).removed_resources == ["a"]
        client.call.cancel()
        await until(lambda: rig.server.scope(GATEWAY) is None)


async def test_200_connections_come_and_go_and_leave_nothing(rig):
    """Cancelled in every phase: before a word, while a response is on its way, after the ACK."""
    channel = rig.channel()
    stays = Client(channel)
    await stays.take(CLUSTER, gateway=GATEWAY)
    await until(lambda: [view.in_flight for node in rig.server.nodes() for view in node.types] == [()])
    tasks = len(asyncio.all_tasks())
    for round_ in range(200):
        client = Client(channel)
        if round_ % 4:
            await client.say(CLUSTER, gateway=GATEWAY)
        if round_ % 4 > 1:
            response = await client.get()
            await client.ack(response)
        if round_ % 4 > 2:
            rig.server.publish(GATEWAY, [make(CLUSTER, "b", round_)])
        client.call.cancel()
    await until(lambda: rig.server.connected(GATEWAY) == 1)
    gc.collect()
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert len(rig.record.gone) == len(rig.record.streams) - 1
