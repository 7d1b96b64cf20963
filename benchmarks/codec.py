"""The wire codec against the design's budgets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from betterproto2 import Message

from benchmarks.measure import Figure, cpu
from xds.api.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
)
from xds.api.envoy.config.core.v3 import (
    Address,
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    HeaderValue,
    HeaderValueOption,
    Node,
    SocketAddress,
)
from xds.api.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from xds.api.envoy.config.listener.v3 import Filter, FilterChain, Listener
from xds.api.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteActionHashPolicy,
    RouteActionHashPolicyHeader,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from xds.api.envoy.extensions.filters.http.router.v3 import Router
from xds.api.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager, HttpFilter, Rds
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.api.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from xds.api.google.protobuf import Any
from xds.api.google.rpc import Status
from xds.types import ResourceType
from xds.wire import Encoder, decode, encode, resource
from xds.wire.varint import delimited

ADS = ConfigSource(
    ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3, initial_fetch_timeout=timedelta(seconds=0)
)


def cluster(name: str) -> Cluster:
    """A backend's cluster."""
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ADS, service_name=name),
        connect_timeout=timedelta(seconds=2),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        circuit_breakers=CircuitBreakers(
            thresholds=[CircuitBreakersThresholds(max_connections=1024, max_retries=1000)]
        ),
    )


def endpoint(number: int) -> LbEndpoint:
    """An endpoint."""
    address = SocketAddress(address=f"10.0.{number >> 8}.{number & 255}", port_value=8080)
    return LbEndpoint(endpoint=Endpoint(address=Address(socket_address=address)))


def assignment(name: str, endpoints: list[LbEndpoint]) -> ClusterLoadAssignment:
    """A cluster's endpoints."""
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def route(*headers: HeaderMatcher, hashed: str, add: list[HeaderValueOption]) -> Route:
    """A split over two clusters."""
    clusters = [
        WeightedClusterClusterWeight(name="models/iris/stable", weight=90),
        WeightedClusterClusterWeight(name="models/iris/canary", weight=10),
    ]
    return Route(
        match=RouteMatch(prefix="/", headers=list(headers)),
        route=RouteAction(
            weighted_clusters=WeightedCluster(clusters=clusters, use_hash_policy=True),
            timeout=timedelta(seconds=0),
            hash_policy=[RouteActionHashPolicy(header=RouteActionHashPolicyHeader(header_name=hashed))],
            retry_policy=RetryPolicy(retry_on="connect-failure,refused-stream", num_retries=2),
        ),
        response_headers_to_add=add,
    )


def routes() -> RouteConfiguration:
    """Three routes: a tester's, those with the cookie, those without."""
    cookie = RegexMatcher(regex="(.*; *)?xd=[^;]+(;.*)?")
    set_cookie = HeaderValueOption(header=HeaderValue(key="set-cookie", value="xd=%REQ(x-request-id)%; Path=/"))
    tester = HeaderMatcher(name="x-tester", string_match=StringMatcher(exact="true"))
    sticky = HeaderMatcher(name="cookie", string_match=StringMatcher(safe_regex=cookie))
    host = VirtualHost(
        name="iris",
        domains=["*"],
        routes=[
            route(tester, hashed="x-user", add=[]),
            route(sticky, hashed="cookie", add=[]),
            route(hashed="x-request-id", add=[set_cookie]),
        ],
    )
    return RouteConfiguration(name="models/iris", virtual_hosts=[host], validate_clusters=False)


def listener() -> Listener:
    """A gateway's listener."""
    manager = HttpConnectionManager(
        stat_prefix="gateway",
        rds=Rds(config_source=ADS, route_config_name="models/iris"),
        http_filters=[HttpFilter(name="router", typed_config=Any.pack(Router(suppress_envoy_headers=True)))],
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
    )
    return Listener(
        name="gateway",
        address=Address(socket_address=SocketAddress(address="0.0.0.0", port_value=8080)),
        filter_chains=[FilterChain(filters=[Filter(name="http", typed_config=Any.pack(manager))])],
    )


def gateway() -> list[tuple[ResourceType, str, Message]]:
    """The six resources of one gateway with a canary."""
    return [
        (ResourceType.CLUSTER, "stable", cluster("stable")),
        (ResourceType.CLUSTER, "canary", cluster("canary")),
        (ResourceType.ENDPOINT, "stable", assignment("stable", [endpoint(number) for number in range(3)])),
        (ResourceType.ENDPOINT, "canary", assignment("canary", [endpoint(number) for number in range(3, 6)])),
        (ResourceType.ROUTE, "models/iris", routes()),
        (ResourceType.LISTENER, "gateway", listener()),
    ]


def first_request() -> bytes:
    """As long as the first request of Envoy 1.40 (61 KB, 516 extensions in the node), and made alike."""
    extension = b"\n" + delimited(b"envoy.filters.http.some_filter_%03d") + b"\x12" + delimited(b"envoy.filters.http")
    extension += b"*" + delimited(b"envoy.extensions.filters.http.some_filter.v3.SomeFilterPerRoute")
    node = encode(Node(id="gateway-0", cluster="models/iris", user_agent_name="envoy"))
    node += 516 * (b"J" + delimited(extension))
    rest = encode(DeltaDiscoveryRequest(type_url=ResourceType.CLUSTER, resource_names_subscribe=["*"]))
    return b"\n" + delimited(node) + rest


def _micros(name: str, fn: Callable[[], object], target: str, number: int, note: str = "") -> Figure:
    return Figure(name, cpu(fn, number=number) * 1e6, "µs", target, note)


def _encoding() -> list[Figure]:
    encoder = Encoder((LbEndpoint,))
    endpoints = [endpoint(number) for number in range(1000)]
    # As decoded: betterproto2 cannot write messages packed into Any.
    plain = [decode(type(message), encode(message)) for _, _, message in gateway()]
    ours = cpu(lambda: [encode(message) for message in plain], number=200)
    theirs = cpu(lambda: [bytes(message) for message in plain], number=3, repeat=3)
    return [
        _micros("gateway of 6 resources: construct", gateway, "", 200),
        _micros("gateway of 6 resources: construct, encode", lambda: [encode(made[2]) for made in gateway()], "", 200),
        _micros("gateway of 6 resources: construct, encode, frame", _framed_gateway, "", 200),
        _micros("assignment of 3 endpoints", lambda: encode(assignment("a", endpoints[:3])), "< 15", 500),
        _micros(
            "assignment of 1,000 endpoints, cached", lambda: encoder.encode(assignment("a", endpoints)), "< 500", 50
        ),
        Figure("encoder against betterproto2's bytes()", theirs / ours, "x", "> 30"),
    ]


def _framed_gateway() -> object:
    return [resource(kind, name, encode(message)) for kind, name, message in gateway()]


def _decoding() -> list[Figure]:
    first = first_request()
    ack = DeltaDiscoveryRequest(type_url=ResourceType.ROUTE, response_nonce="17")
    acknowledged = encode(ack)
    refusal = Status(code=13, message="Proto constraint validation failed: value must be greater than 0")
    ack.error_detail = refusal
    refused = encode(ack)
    request = DeltaDiscoveryRequest
    return [
        _micros("Envoy's first request decoded", lambda: decode(request, first), "< 100", 50, f"{len(first):,} bytes"),
        _micros("ACK decoded", lambda: decode(request, acknowledged), "< 2", 5000),
        _micros("NACK decoded", lambda: decode(request, refused), "< 5", 5000),
    ]


def figures() -> list[Figure]:
    """The lines of the table."""
    return [*_encoding(), *_decoding()]


if __name__ == "__main__":
    for figure in figures():
        print(f"{figure.name:52}{figure.value:10.2f} {figure.unit:3} {figure.target:8} {figure.note}")
