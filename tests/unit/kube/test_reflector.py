"""What a real apiserver cannot be made to do: silence, broken lines, patience, a foreign answer. By a small one."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.support.wait import wait_until
from xdserve.kube import course, reflector
from xdserve.kube.client import connect
from xdserve.kube.reflector import Deleted, Listed, Reflector, Upserted
from xdserve.kube.resources import RESOURCES, Scope

SERVICES = next(resource for resource in RESOURCES if resource.plural == "services")
KUBECONFIG = """
current-context: c
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
users: [{{name: u, user: {{token: secret}}}}]
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """What failed is tried again at once; how long it waits is tested with the course, which has no clock."""
    monkeypatch.setattr(course, "FIRST_DELAY", 0.01)


def named(name, version="5"):
    return {"metadata": {"name": name, "namespace": "models", "resourceVersion": version}}


def line(kind, found):
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


class Fake:
    """An apiserver of Services: each watch answers as the next of ``watches`` says, the last one for ever."""

    def __init__(self, *watches, items=("a",)):
        self.watches = list(watches)
        self.items = items
        self.requests = []
        self.lists = []

    async def answer(self, request):
        query = dict(request.query)
        self.requests.append((request.path, query, request.headers.get("Authorization")))
        if "watch" not in query:
            if self.lists:
                return self.lists.pop(0)
            return web.json_response({"metadata": {"resourceVersion": "10"}, "items": [named(i) for i in self.items]})
        behave = self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]
        return await behave(request)

    def asked(self, watch):
        return [query for _, query, _ in self.requests if ("watch" in query) is watch]


def stream(*chunks, silent=True):
    """A watch that sends these bytes, then nothing (or its end)."""

    async def behave(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if silent:
            await asyncio.Event().wait()
        return response

    return behave


def refuse(status, **headers):
    async def behave(request):
        return web.json_response({"kind": "Status", "code": status, "message": "no"}, status=status, headers=headers)

    return behave


class Run:
    """What a reflector has told."""

    def __init__(self, fake):
        self.fake = fake
        self.events = []
        self.told = []
        self.reflector = None

    def take(self, events):
        self.events += events

    def names(self):
        """What there is, by the events."""
        found = set()
        for event in self.events:
            match event:
                case Listed():
                    found = set(event.objects)
                case Upserted():
                    found.add(event.object)
                case Deleted():
                    found.discard(event.document["metadata"]["name"])
        return found


@asynccontextmanager
async def following(fake, tmp_path):
    application = web.Application()
    application.router.add_get("/{path:.*}", fake.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (tmp_path / "kubeconfig").write_text(KUBECONFIG.format(port=runner.addresses[0][1]))
    client = await connect(tmp_path / "kubeconfig")
    run = Run(fake)
    run.reflector = Reflector(
        client,
        Scope(SERVICES),
        lambda document: document["metadata"]["name"],
        run.take,
        lambda: run.told.append(run.reflector.trouble),
    )
    task = asyncio.create_task(run.reflector.run())
    try:
        yield run
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()
        await runner.cleanup()


async def test_a_watch_asks_for_what_it_needs(tmp_path):
    fake = Fake(stream(line("ADDED", named("b", "11"))))
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: run.names() == {"a", "b"})
    [asked] = fake.asked(watch=True)
    shortest, longest = reflector.WATCH_SECONDS
    assert shortest <= int(asked.pop("timeoutSeconds")) <= longest
    assert asked == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "10"}
    assert fake.asked(watch=False) == [{"limit": "500"}]
    assert {(path, token) for path, _, token in fake.requests} == {("/api/v1/services", "Bearer secret")}


async def test_a_silent_watch_is_renewed_from_the_last_version(tmp_path, monkeypatch):
    monkeypatch.setattr(reflector, "SILENCE_SECONDS", 0.1)
    fake = Fake(stream(line("BOOKMARK", named("", "17"))), stream(line("ADDED", named("b", "18"))))
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: run.names() == {"a", "b"})
        assert [asked["resourceVersion"] for asked in fake.asked(watch=True)[:2]] == ["10", "17"]
        assert run.told == []  # nobody needs to know
        assert run.reflector.counts.lists == 1


async def test_an_apiserver_that_went_back_in_time_is_listed_anew(tmp_path, monkeypatch):
    """etcd was restored from a backup: of a version that is yet to be, a watch tells nothing."""
    monkeypatch.setattr(reflector, "SILENCE_SECONDS", 0.1)
    fake = Fake(stream())
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: run.names() == {"a"})
        fake.items = ["before"]
        await wait_until(lambda: run.names() == {"before"})


@pytest.mark.parametrize(
    "chunk",
    [b"{broken\n", b"[]\n", line("ADDED", None), line("RENAMED", named("x")), line("ADDED", {"metadata": {}})],
)
async def test_a_broken_line_makes_a_new_list(tmp_path, chunk):
    fake = Fake(stream(line("ADDED", named("b", "11")), chunk), stream(line("ADDED", named("c", "12"))))
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: "c" in run.names())
        assert Upserted("b") in run.events  # what came before it counts
        assert run.names() == {"a", "c"}
        assert run.reflector.counts.lists == 2


async def test_a_line_without_end_makes_a_new_list(tmp_path, monkeypatch):
    monkeypatch.setattr("xdserve.kube.frames.LONGEST_LINE", 100)
    monkeypatch.setattr("xdserve.kube.frames.Lines.__init__.__defaults__", (100,))
    fake = Fake(stream(b"x" * 200), stream(line("ADDED", named("c", "12"))))
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: "c" in run.names())
        assert run.reflector.counts.lists == 2


async def test_the_apiservers_patience_is_kept(tmp_path):
    fake = Fake(refuse(429, **{"Retry-After": "1"}), stream(line("ADDED", named("b", "11"))))
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: run.reflector.counts.watches == 1)
        begun = time.monotonic()
        await wait_until(lambda: run.names() == {"a", "b"})
        assert time.monotonic() - begun > 0.8


async def test_410_in_a_watch_and_of_a_watch_make_new_lists(tmp_path):
    expired = line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
    fake = Fake(stream(expired), refuse(410), stream(line("ADDED", named("b", "11"))))
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: "b" in run.names())
        assert run.reflector.counts.lists == 3
        assert run.reflector.counts.failures == {course.Trouble.EXPIRED: 2}
        assert run.told == []


async def test_a_list_that_expires_between_its_pages_begins_anew(tmp_path):
    fake = Fake(stream())
    page = {"metadata": {"resourceVersion": "9", "continue": "next"}, "items": [named("gone")]}
    expired = web.json_response({"kind": "Status", "code": 410, "message": "the token is too old"}, status=410)
    fake.lists = [web.json_response(page), expired]
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: run.events)
        assert run.events == [Listed(["a"])]
        assert fake.asked(watch=False) == [{"limit": "500"}, {"limit": "500", "continue": "next"}, {"limit": "500"}]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>Sign in</html>"),
        lambda: web.json_response([]),
        lambda: web.json_response({"items": []}),
        lambda: web.json_response({"metadata": {"resourceVersion": "1"}, "items": {}}),
        lambda: web.json_response({"metadata": {"resourceVersion": "1"}}),
        lambda: web.json_response({"metadata": {"resourceVersion": "1"}, "items": [1]}),
        lambda: web.Response(status=503, text="apiserver not ready"),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    ],
)
async def test_an_answer_that_is_none_is_asked_for_again_and_told_once(tmp_path, answer):
    fake = Fake(stream())
    fake.lists = [answer(), answer(), answer()]
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: run.events)
        assert run.events == [Listed(["a"])]
        assert len(run.told) == 2
        assert run.told[0].isprintable()
        assert run.told[1] is None


async def test_a_connection_that_breaks_off_in_the_middle_of_a_line(tmp_path):
    async def breaks(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("ADDED", named("b", "11")) + b'{"type": "ADD')
        request.transport.abort()
        return response

    fake = Fake(breaks, stream(line("ADDED", named("c", "12"))))
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: run.names() == {"a", "b", "c"})
        assert [asked["resourceVersion"] for asked in fake.asked(watch=True)[:2]] == ["10", "11"]
        assert run.reflector.counts.lists == 1


async def test_404_while_an_apiserver_starts_removes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "CONFIRM_DELAY", 0.01)
    found = {"resources": [{"name": "services"}]}
    fake = Fake(refuse(404), stream(line("ADDED", named("b", "11"))))

    # The list, then for the looks: ready, no discovery; not ready; ready, discovery.
    fake.lists = [
        web.json_response({"metadata": {"resourceVersion": "10"}, "items": [named("a")]}),
        web.Response(text="ok"),
        web.Response(status=404, text="404 page not found"),
        web.Response(status=500, text="not ready"),
        web.Response(text="ok"),
        web.json_response(found),
    ]
    async with following(fake, tmp_path) as run:
        await wait_until(lambda: "b" in run.names())
        assert all(event.objects for event in run.events if isinstance(event, Listed))
        assert run.names() == {"a", "b"}
