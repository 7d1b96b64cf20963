"""Shared messages: encoded once, and giving the bytes that they give alone."""

from __future__ import annotations

import gc

from translator.envoy.shared import MOST, SHARED, shared
from xds.api.envoy.config.core.v3 import Address, SocketAddress
from xds.api.envoy.config.route.v3 import HeaderMatcher, RouteMatch
from xds.wire import Encoder, encode


def test_shared_messages_give_the_same_bytes_wherever_they_are():
    matchers = [HeaderMatcher(name="x-a"), HeaderMatcher(name="a" * 200), HeaderMatcher()]
    addresses = [Address(socket_address=SocketAddress(address="127.0.0.1", port_value=80)), Address()]
    known = {id(message): message for message in [*matchers, addresses[0], addresses[0].socket_address]}
    encoder = Encoder(shared=known)
    for message in (RouteMatch(prefix="/", headers=matchers * 5), RouteMatch(headers=[HeaderMatcher()]), *addresses):
        assert encoder.encode(message) == encode(message)


def test_messages_shared_later_are_known_too():
    known: dict[int, HeaderMatcher] = {}
    encoder = Encoder(shared=known)
    for name in ("a", "b", "c"):
        message = HeaderMatcher(name=name)
        known[id(message)] = message
        assert encoder.encode(RouteMatch(headers=[message])) == encode(RouteMatch(headers=[HeaderMatcher(name=name)]))


def test_a_shared_message_is_made_once_for_its_arguments_and_only_so_many_are_kept():
    made: list[str] = []

    @shared
    def matcher(name: str) -> HeaderMatcher:
        made.append(name)
        return HeaderMatcher(name=name)

    before = len(SHARED)
    names = [f"x-{number}" for number in range(MOST + 10)]
    for name in names:
        assert matcher(name).name == name
    assert matcher(names[0]) is matcher(names[0])
    assert made == names
    assert len(SHARED) == before + MOST
    assert matcher(names[-1]) is not matcher(names[-1])


def test_a_message_that_is_not_shared_may_have_the_id_of_another_before_it():
    encoder = Encoder(shared=SHARED)
    for number in range(100):
        message = RouteMatch(headers=[HeaderMatcher(name=f"x-{number}")])
        assert encoder.encode(message) == encode(message)
        del message
        gc.collect(0)
