"""What is not a message that can be sent is refused, with the path to it."""

from __future__ import annotations

import traceback
from datetime import timedelta

import pytest

from tests.unit.wire.everything import Color, Everything
from xds.api.envoy.config.core.v3 import Address, Metadata, SocketAddress
from xds.api.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from xds.api.envoy.config.listener.v3 import Filter, FilterChain, Listener
from xds.api.envoy.config.route.v3 import (
    RetryPolicy,
    Route,
    RouteAction,
    RouteActionHashPolicyCookie,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from xds.api.envoy.extensions.filters.http.router.v3 import Router
from xds.api.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager, HttpFilter
from xds.api.google.protobuf import Any, ListValue, Struct, Value
from xds.wire import EncodeError, Encoder, decode, encode

ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def in_a_route(route: Route) -> RouteConfiguration:
    return RouteConfiguration(virtual_hosts=[VirtualHost(routes=[Route(), route])])


@pytest.mark.parametrize(
    ("message", "path", "reason"),
    [
        (
            in_a_route(Route(match=RouteMatch(prefix="/", path="/v1"))),
            "RouteConfiguration.virtual_hosts[0].routes[1].match",
            "two members of the oneof path_specifier are set",
        ),
        (
            in_a_route(Route(route=RouteAction(retry_policy=RetryPolicy(num_retries=1 << 32)))),
            "RouteConfiguration.virtual_hosts[0].routes[1].route.retry_policy.num_retries",
            "found 4294967296, allowed are 0 to 4294967295",
        ),
        (SocketAddress(port_value=-1), "SocketAddress.port_value", "found -1, allowed are 0 to 4294967295"),
        (Everything(one_sint32=1 << 31), "Everything.one_sint32", "allowed are -2147483648 to 2147483647"),
        (Everything(map_wrappers={7: -1}), "Everything.map_wrappers[7]", "found -1"),
        (Everything(many_int64=[1, 1 << 63]), "Everything.many_int64[1]", "found 9223372036854775808"),
        (Everything(maybe_fixed32=1 << 32), "Everything.maybe_fixed32", "4294967296"),
        (Everything(one_float=1e40), "Everything.one_float", "too large"),
        (VirtualHost(domains="example.org"), "VirtualHost.domains", "found 'example.org' of type str"),
        (VirtualHost(domains=["a", 5]), "VirtualHost.domains[1]", "found 5 of type int"),
        (VirtualHost(domains=None), "VirtualHost.domains", "found None"),
        (VirtualHost(name=None), "VirtualHost.name", "found None"),
        (VirtualHost(name=b"x"), "VirtualHost.name", "found b'x' of type bytes"),
        (VirtualHost(name="\ud800"), "VirtualHost.name", "surrogates not allowed"),
        (VirtualHost(include_request_attempt_count=1), "VirtualHost.include_request_attempt_count", "found 1"),
        (Metadata(filter_metadata=[Struct()]), "Metadata.filter_metadata", "found [Struct()] of type list"),
        (Metadata(filter_metadata={"a": {}}), "Metadata.filter_metadata['a']", "found {} of type dict"),
        (Metadata(filter_metadata={5: Struct()}), "Metadata.filter_metadata[5]", "of type Struct"),
        (SocketAddress(port_value=80.0), "SocketAddress.port_value", "found 80.0 of type float"),
        (SocketAddress(port_value=8080.0), "SocketAddress.port_value", "found 8080.0 of type float"),
        (RouteAction(timeout=5), "RouteAction.timeout", "found 5 of type int"),
        (RouteActionHashPolicyCookie(ttl=timedelta.max), "RouteActionHashPolicyCookie.ttl", "allowed are"),
        (Route(route=RouteMatch()), "Route.route", "found RouteMatch() of type RouteMatch"),
        (Everything(many_enum=["RED"]), "Everything.many_enum[0]", "found 'RED' of type str"),
        (HttpFilter(typed_config=Router()), "HttpFilter.typed_config", "found Router() of type Router"),
        (Any(value="text"), "Any.value", "found 'text' of type str"),
        (
            Listener(
                filter_chains=[
                    FilterChain(filters=[Filter(typed_config=Any.pack(HttpConnectionManager(xff_num_trusted_hops=-1)))])
                ]
            ),
            "Listener.filter_chains[0].filters[0].typed_config.value.xff_num_trusted_hops",
            "found -1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)
def test_says_which_field_is_wrong_and_why(message, path, reason):
    with pytest.raises(EncodeError) as raised:
        encode(message)
    assert raised.value.path == path
    assert reason in raised.value.reason
    assert str(raised.value) == f"{path}: {raised.value.reason}"


@pytest.mark.parametrize("thing", [None, 5, "text", object()])
def test_refuses_what_is_no_message(thing):
    with pytest.raises(EncodeError):
        encode(thing)


def test_refuses_a_message_inside_itself():
    value = Value(list_value=ListValue())
    value.list_value.values.append(value)
    with pytest.raises(EncodeError, match="nested too deep"):
        encode(value)


def test_writes_fields_in_number_order_and_maps_by_key():
    message = Metadata(filter_metadata={"b": Struct(), "": Struct(), "a": Struct()})
    assert encode(message) == b"\n\x04\n\x00\x12\x00" + b"\n\x05\n\x01a\x12\x00" + b"\n\x05\n\x01b\x12\x00"
    # `name` is number 14
    assert encode(Route(name="x", match=RouteMatch(prefix="/"))) == b"\n\x03\n\x01/" + b"r\x01x"


def test_tells_minus_zero_from_zero():
    assert encode(Everything(one_double=0.0)) == b""
    assert len(encode(Everything(one_double=-0.0))) == 9


def test_tells_a_wrapper_of_zero_from_none():
    assert encode(RetryPolicy(num_retries=None)) == b""
    assert encode(RetryPolicy(num_retries=0)) == b"\x12\x00"


@pytest.mark.parametrize(
    ("timeout", "data"),
    [
        (timedelta(0), b""),
        (timedelta(seconds=300), b"\x08\xac\x02"),
        (timedelta(microseconds=250_000), b"\x10\x80\xe5\x9aw"),
        # -1.5 s is -1 s and -500,000,000 ns
        (timedelta(seconds=-1.5), b"\x08" + b"\xff" * 9 + b"\x01" + b"\x10\x80\xb6\xca\x91\xfe\xff\xff\xff\xff\x01"),
    ],
)
def test_durations_have_one_sign(timeout, data):
    assert encode(RouteAction(timeout=timeout)) == b"B" + bytes([len(data)]) + data


def test_packs_a_message_into_any():
    packed = decode(Any, encode(Any.pack(Router(suppress_envoy_headers=True))))
    assert packed.type_url == ROUTER
    assert packed.value == encode(Router(suppress_envoy_headers=True))
    assert Any.pack(Router()).to_dict() == {"@type": ROUTER}
    assert packed.to_dict() == {"@type": ROUTER, "suppressEnvoyHeaders": True}
    assert Any(type_url="x/unknown", value=b"\xff").to_dict() == {"@type": "x/unknown", "value": "/w=="}


def test_takes_enums_that_are_not_known():
    assert encode(Everything(one_enum=Color(77))) == b"\xe8\x03M"
    assert encode(Everything(one_enum=77)) == b"\xe8\x03M"


# -- the memo ----------------------------------------------------------------------------------------------------------


def endpoint(number: int) -> LbEndpoint:
    address = SocketAddress(address="10.0.0.1", port_value=number)
    return LbEndpoint(endpoint=Endpoint(address=Address(socket_address=address)))


def assignment(endpoints: list[LbEndpoint]) -> ClusterLoadAssignment:
    return ClusterLoadAssignment(cluster_name="a", endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_memo_changes_no_byte(count):
    endpoints = [endpoint(number) for number in range(count)]
    encoder = Encoder((LbEndpoint,))
    for _ in range(2):
        assert encoder.encode(assignment(endpoints)) == encode(assignment(endpoints))
    assert encoder.encode(endpoints[0]) == encode(endpoints[0])


def test_a_memo_encodes_an_object_once():
    shared = endpoint(1)
    encoder = Encoder((LbEndpoint,))
    before = encoder.encode(assignment([shared]))
    shared.endpoint.hostname = "changed against the rule"
    assert encoder.encode(assignment([shared])) == before


def test_a_full_memo_starts_anew_and_never_mixes_up_objects():
    encoder = Encoder((LbEndpoint,), limit=10)
    for number in range(100):
        # Made and dropped: the next may have the same id.
        message = assignment([endpoint(number), endpoint(number + 1)])
        assert encoder.encode(message) == encode(message)


def test_errors_are_found_through_a_memo_too():
    broken = assignment([endpoint(1), endpoint(-1)])
    for _ in range(2):
        with pytest.raises(EncodeError, match=r"endpoints\[0\].lb_endpoints\[1\].endpoint.*port_value: found -1"):
            Encoder((LbEndpoint,)).encode(broken)


def test_tracebacks_show_the_compiled_source():
    with pytest.raises(EncodeError) as raised:
        encode(VirtualHost(domains=[5]))
    lines = "".join(traceback.format_exception(raised.value.__cause__))
    assert "encode_VirtualHost" in lines
    assert "for x in v: r += " in lines
