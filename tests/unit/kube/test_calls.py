"""One request to an apiserver: whatever stands there instead says no, and is told so."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration

from xdserve.kube.calls import CallError, Calls


async def ask(status, body, headers=None):
    """What becomes of a request that gets this answer."""

    async def answer(_):
        return web.Response(status=status, body=body, headers=headers)

    app = web.Application()
    app.router.add_get("/there", answer)
    async with TestServer(app) as server:
        configuration = Configuration(host=str(server.make_url("/")).rstrip("/"))
        configuration.retries = None
        async with ApiClient(configuration) as client:
            return await Calls(client)("GET", "/there")


@pytest.mark.parametrize(("body", "found"), [(b'{"kind": "Status"}', {"kind": "Status"}), (b"", {})])
async def test_an_object_is_an_answer(body, found):
    assert await ask(200, body) == found


@pytest.mark.parametrize("body", [b"<html>maintenance</html>", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
async def test_what_is_no_object_is_no_answer(body):
    """A load balancer before an apiserver that is away may say 200."""
    with pytest.raises(CallError, match="status 200, and no") as raised:
        await ask(200, body)
    assert raised.value.status == 0


async def test_a_refusal_has_its_status_and_its_words():
    with pytest.raises(CallError, match="409: it has changed") as raised:
        await ask(409, b'{"kind": "Status", "message": "it has changed"}')
    assert raised.value.status == 409


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7), ("86400", 120), ("9" * 400, 120), ("soon", 0), ("\u00b2", 0)])
async def test_who_asks_to_wait_is_heard_for_minutes_and_not_for_days(asked, seconds):
    """Nothing would be written all day, and nothing would say why."""
    with pytest.raises(CallError) as raised:
        await ask(503, b"maintenance", {"Retry-After": asked})
    assert raised.value.retry_after == seconds
