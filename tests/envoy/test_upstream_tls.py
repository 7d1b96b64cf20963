"""Backends that are spoken to by TLS: what is believed, what is refused, and that nothing ever goes in plain text."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from tests.support.certificates import Authority
from tests.support.documents import backend, config_map, endpoints, entrance, isvc, policy, service, split, to_service
from tests.support.envoy import pick_ports
from tests.support.grpc_streams import GrpcStream, GrpcStreamer
from tests.support.models import grpc_ask
from tests.support.plane import gateway, serving
from tests.support.requests import http1
from tests.support.serve import Serve
from tests.support.stubs import EventStream, Streamer, stub_server
from tests.support.tls_models import grpc_tapped, http2_tapped, http_tapped, server_context
from tests.support.wait import wait_until
from translator.planners.options import Options

NAME = "iris-v2.models.svc"
KIB, MIB = 1 << 10, 1 << 20
BY_CA = {"caRef": {"name": "service-ca"}}
MOST_SECONDS = 5
"""Until a backend that nobody can connect to is answered for, all nine tries included; 0.5 s to 0.8 s were seen."""


@pytest.fixture
def ca():
    """The authority that the policies' `caRef` names."""
    return Authority("service-ca")


def bundle(*authorities):
    """The ConfigMap of a service CA, as OpenShift and cert-manager write it."""
    return config_map("service-ca", ca_crt="".join(one.certificate.decode() for one in authorities))


def to_v2(protocol="HTTPS", tls=BY_CA):
    """A policy that gives everything to v2."""
    said = {"tls": tls} if tls else {}
    return policy(backends=[to_service("v2", "iris-v2", protocol=protocol, **said)], split=split(v2=1))


@asynccontextmanager
async def gateway_to(folder, port, *documents, **how):
    """A gateway of iris, and v2 with one endpoint at a port; load reports come often."""
    documents = (isvc(), backend("iris-predictor"), backend("iris-v2", port), *documents, entrance)
    async with serving(folder, *documents, load_interval=0.2, **how) as started:
        yield started


def findings(started, reason):
    """The messages of a reason, by object and field."""
    entries = [dated.entry for dated in started.plane.ledger if dated.entry.reason == reason]
    return {f"{entry.object} {entry.field}": entry.message for entry in entries}


async def predicted(started, size):
    """The variant that answers a prediction of about so many bytes."""
    body = json.dumps({"instances": [0] * (size // 3)}).encode()
    reply = await started.ask("/v1/models/iris:predict", method="POST", body=body)
    return reply.status, reply.header("x-variant"), len(json.loads(reply.body)["predictions"])


# -- What answers ----------------------------------------------------------------------------------------------------


async def test_a_certificate_of_the_given_ca_answers(tmp_path, ca):
    context = server_context(ca.service(NAME), tmp_path)
    async with http_tapped("v2", context) as (_, tap), gateway_to(tmp_path, tap.port, bundle(ca), to_v2()) as started:
        for size in (KIB, MIB):
            assert await predicted(started, size) == (200, "v2", size // 3)
        assert not findings(started, "BackendUnreachable")
        tap.check_tls()


async def test_http2_by_tls_answers(tmp_path, ca):
    context = server_context(ca.service(NAME), tmp_path, "h2")
    async with http2_tapped("v2", context) as tap:
        async with gateway_to(tmp_path, tap.port, bundle(ca), to_v2("HTTP2")) as started:
            for size in (KIB, MIB):
                reply = await started.ask(method="POST", body=b"x" * size)
                assert (reply.status, reply.header("x-variant"), len(reply.body)) == (200, "v2", size)
        tap.check_tls()


async def test_grpc_by_tls_answers(tmp_path, ca):
    async with grpc_tapped("v2", ca.service(NAME)) as (model, tap):
        async with gateway_to(tmp_path, tap.port, bundle(ca), to_v2("HTTP2")) as started:
            for size in (KIB, MIB):
                assert await grpc_ask(started.port, request=b"x" * size) == "v2"
        assert [len(request) for _, _, request in model.calls] == [KIB, MIB]
        tap.check_tls()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_of_one_version_alone_answers(tmp_path, ca, version):
    context = server_context(ca.service(NAME), tmp_path, version=version)
    async with http_tapped("v2", context) as (_, tap), gateway_to(tmp_path, tap.port, bundle(ca), to_v2()) as started:
        assert await started.variant() == "v2"


async def test_a_certificate_with_a_wildcard_answers(tmp_path, ca):
    context = server_context(ca.service("*.models.svc"), tmp_path)
    async with http_tapped("v2", context) as (_, tap), gateway_to(tmp_path, tap.port, bundle(ca), to_v2()) as started:
        assert await started.variant() == "v2"


@pytest.mark.parametrize(
    "port", [{"name": "https"}, {"name": "tls-models"}, {"name": "web", "appProtocol": "https"}], ids=str
)
async def test_a_port_that_says_tls_needs_no_policy_and_is_verified_by_the_ca_file(tmp_path, ca, port):
    context = server_context(ca.service("iris-predictor.models.svc"), tmp_path)
    made = service("iris-predictor")
    made["spec"]["ports"] = [{"port": 8443, **port}]
    options = Options(ca_file=str(ca.write(tmp_path)))
    async with http_tapped("stable", context) as (_, tap):
        slices = endpoints("iris-predictor", tap.port, port_name=port["name"])
        async with serving(tmp_path, isvc(), made, slices, entrance, options=options) as started:
            assert await started.variant() == "stable"
        tap.check_tls()


async def test_another_hostname_is_asked_for_and_expected(tmp_path, ca):
    context, asked = server_context(ca.service("models.example.org"), tmp_path), []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    tls = {**BY_CA, "hostname": "models.example.org"}
    async with http_tapped("v2", context) as (_, tap), gateway_to(tmp_path, tap.port, bundle(ca), to_v2(tls=tls)) as it:
        assert await it.variant() == "v2"
    assert set(asked) == {"models.example.org"}


async def test_without_verification_any_certificate_answers(tmp_path):
    context = server_context(Authority("stranger").service("elsewhere.example.org", expired=True), tmp_path)
    policy_ = to_v2(tls={"insecureSkipVerify": True})
    async with http_tapped("v2", context) as (_, tap), gateway_to(tmp_path, tap.port, policy_) as started:
        assert await started.variant() == "v2"
        tap.check_tls()


# -- What is refused -------------------------------------------------------------------------------------------------


REFUSED = {
    "an unknown CA": lambda ca: Authority("stranger").service(NAME),
    "another name": lambda ca: ca.service("iris-v3.models.svc"),
    "an expired certificate": lambda ca: ca.service(NAME, expired=True),
    "plain text": lambda ca: None,
}


@pytest.mark.parametrize("fault", REFUSED)
async def test_what_cannot_be_verified_is_answered_503_and_gets_no_byte_in_plain_text(tmp_path, ca, fault):
    pair = REFUSED[fault](ca)
    context = pair and server_context(pair, tmp_path)
    async with http_tapped("v2", context) as (model, tap):
        async with gateway_to(tmp_path, tap.port, bundle(ca), to_v2()) as started:
            begun = time.monotonic()
            replies = [await started.ask(seconds=MOST_SECONDS, method="POST", body=b"x" * size) for size in (KIB, MIB)]
            assert time.monotonic() - begun < 2 * MOST_SECONDS
            assert [(r.status, json.loads(r.body)["error"]["reason"]) for r in replies] == [(503, "BackendFailed")] * 2
            await unreachable(started, "expected is a certificate for iris-v2.models.svc that the CA of its caRef has")
        assert model.requests == 0
        tap.check_tls()


async def unreachable(started, words):
    """Ask until it is said that the backend cannot be reached: the first report of a new cluster does not count."""

    async def said():
        await started.ask()
        return findings(started, "BackendUnreachable")

    ((where, message),) = (await wait_until(said, 20, "a finding")).items()
    assert where == "TrafficPolicy models/iris spec.backends[0].ref"
    assert message.startswith("Envoys cannot connect to backend v2 (Service models/iris-v2)")
    assert words in message


async def test_grpc_calls_to_what_cannot_be_verified_are_unavailable(tmp_path, ca):
    async with grpc_tapped("v2", Authority("stranger").service(NAME)) as (model, tap):
        async with gateway_to(tmp_path, tap.port, bundle(ca), to_v2("HTTP2")) as started:
            with pytest.raises(grpc.aio.AioRpcError, match="BackendFailed") as caught:
                await grpc_ask(started.port)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert model.calls == []
        tap.check_tls()


async def test_the_finding_goes_with_the_first_answer(tmp_path, ca):
    """The CA is put right; the server's certificate is, where the policy stays as it is."""
    pair, wrong = ca.service(NAME), Authority("stranger").service(NAME)
    context = server_context(wrong, tmp_path)
    async with http_tapped("v2", context) as (_, tap), gateway_to(tmp_path, tap.port, bundle(ca), to_v2()) as started:
        await unreachable(started, NAME)
        context.load_cert_chain(*pair.write(tmp_path, "renewed"))
        assert await started.variant() == "v2"
        await wait_until(lambda: not findings(started, "BackendUnreachable"), 10, "the finding to go")


async def test_the_finding_goes_with_an_edit_of_the_backend(tmp_path, ca):
    stranger = Authority("stranger")
    context = server_context(stranger.service(NAME), tmp_path)
    async with http_tapped("v2", context) as (_, tap), gateway_to(tmp_path, tap.port, bundle(ca), to_v2()) as started:
        await unreachable(started, NAME)
        await started.edit(bundle(stranger))
        assert not findings(started, "BackendUnreachable")
        assert await started.variant() == "v2"


async def test_a_backend_that_cannot_be_verified_keeps_its_share_and_harms_no_other(tmp_path, ca, model_servers):
    context = server_context(Authority("stranger").service(NAME), tmp_path)
    shares = policy(
        backends=[to_service("stable", "iris-stable"), to_service("v2", "iris-v2", protocol="HTTPS", tls=BY_CA)],
        split=split(stable=1, v2=1),
    )
    stable = backend("iris-stable", model_servers["stable"].port)
    async with http_tapped("v2", context) as (_, tap):
        async with gateway_to(tmp_path, tap.port, bundle(ca), stable, shares) as started:
            replies = await asyncio.gather(*(started.ask(seconds=20) for _ in range(100)))
            counted = Counter((reply.status, reply.header("x-variant")) for reply in replies)
            assert set(counted) == {(200, "stable"), (503, None)}
            assert min(counted.values()) > 25
        tap.check_tls()


async def test_xdserve_serve_says_that_a_backend_cannot_be_reached(tmp_path, ca):
    """With the interval of load reports that it has by itself: in the second report after the first request."""
    (port,) = pick_ports(1)
    context = server_context(Authority("stranger").service(NAME), tmp_path)
    async with http_tapped("v2", context) as (_, tap):
        with Serve(tmp_path) as serve:
            models = [*backend("iris-predictor"), *backend("iris-v2", tap.port)]
            serve.write("iris.yaml", isvc(), *models, entrance(port), to_v2(), bundle(ca))
            await serve.started()
            async with gateway(serve, tmp_path, port, ready=False) as started:
                await started.envoy.wait_ready()

                async def said():
                    await started.ask()
                    return ("BackendUnreachable", "spec.backends[0].ref") in await reasons(serve)

                await wait_until(said, 40, "a finding", every=0.5)


# -- A CA that comes, and one that changes ---------------------------------------------------------------------------


async def test_without_the_ca_the_backend_answers_503_until_it_is_there(tmp_path, ca):
    """By `xdserve serve` on a directory, where the ConfigMap comes as a file."""
    (port,) = pick_ports(1)
    context = server_context(ca.service(NAME), tmp_path)
    async with http_tapped("v2", context) as (model, tap):
        with Serve(tmp_path, "--linger", "0.2") as serve:
            models = [*backend("iris-predictor"), *backend("iris-v2", tap.port)]
            serve.write("iris.yaml", isvc(), *models, entrance(port), to_v2())
            await serve.started()
            async with gateway(serve, tmp_path, port, ready=False) as started:
                await started.envoy.wait_ready()
                assert (await started.ask()).status == 503
                assert ("InvalidCACertificateRef", "spec.backends[0].tls.caRef") in await reasons(serve)
                assert tap.opened == model.requests == 0
                serve.write("ca.yaml", bundle(ca))
                begun = time.monotonic()
                await wait_until(lambda: answers(port), 10, "the backend to answer")
                assert time.monotonic() - begun < MOST_SECONDS
                assert "InvalidCACertificateRef" not in {reason for reason, _ in await reasons(serve)}
        tap.check_tls()


async def reasons(serve):
    return {(one["reason"], one["field"]) for one in await serve.errors()}


async def answers(port):
    return (await http1(port, "/v1/models/iris")).status == 200


class Named(Streamer):
    """A model that answers `/stream` with a stream, and all else with its name."""

    def __init__(self, name):
        super().__init__()
        self._answer = f"HTTP/1.1 200 OK\r\nx-variant: {name}\r\ncontent-length: 0\r\n\r\n".encode()

    async def handle(self, head, writer):
        if head.startswith("GET /stream "):
            await super().handle(head, writer)
        else:
            writer.write(self._answer)


async def variants(started, many=30):
    """Who answers, one request after another."""
    return {await started.variant("/v1/models/iris") for _ in range(many)}


async def test_a_changed_ca_cuts_no_stream_and_counts_for_what_is_asked_next(tmp_path, ca):
    """Two pods: one with a certificate of the old CA, one with one of the new CA."""
    new_ca, old, new = Authority("new"), Named("old"), Named("new")
    contexts = [server_context(one.service(NAME), tmp_path) for one in (ca, new_ca)]
    async with stub_server(old.handle, tls=contexts[0]) as first, stub_server(new.handle, tls=contexts[1]) as second:
        slices = endpoints("iris-v2", second, number=1)
        async with gateway_to(tmp_path, first, slices, bundle(ca), to_v2()) as started:
            assert await variants(started) == {"old"}
            stream = await EventStream.open(started.port, "/stream")
            for authorities, expected in (((ca, new_ca), {"old", "new"}), ((new_ca,), {"new"})):
                await started.edit(bundle(*authorities))
                assert await variants(started) == expected
                old.send(len(authorities))
                assert await stream.event() == str(len(authorities))
            old.finish()
            assert not await stream.event()
            stream.close()


async def test_a_changed_ca_cuts_no_stream_of_grpc(tmp_path, ca):
    new_ca, model = Authority("new"), GrpcStreamer()
    serving_v2 = model.serving(tls=ca.service(NAME))
    async with serving_v2 as port, gateway_to(tmp_path, port, bundle(ca), to_v2("HTTP2")) as started:
        stream = await GrpcStream.open(started.port)
        for authorities in ((ca, new_ca), (new_ca,)):
            await started.edit(bundle(*authorities))
            model.send("event")
            assert await stream.event() == "event"
        with pytest.raises(grpc.aio.AioRpcError, match="BackendFailed"):
            await grpc_ask(started.port)
        model.send("last")
        assert await stream.event() == "last"
        await stream.close()
