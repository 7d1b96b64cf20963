"""Backends to clusters."""

from __future__ import annotations

from datetime import timedelta

from translator import names
from translator.envoy.rendered import Rendered, ads, header_case, milliseconds
from translator.envoy.shared import shared
from translator.envoy.tls import upstream_tls
from translator.objects.ref import Ref
from translator.plan import Backend, Protocol
from xds.api.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
    UpstreamConnectionOptions,
)
from xds.api.envoy.config.core.v3 import (
    ConfigSource,
    Http1ProtocolOptions,
    Http1ProtocolOptionsHeaderKeyFormat,
    Http2ProtocolOptions,
    SelfConfigSource,
    TcpKeepalive,
)
from xds.api.envoy.config.core.v3 import HttpProtocolOptions as CommonHttpProtocolOptions
from xds.api.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions, HttpProtocolOptionsExplicitHttpConfig
from xds.api.google.protobuf import Any
from xds.types import ResourceType

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

UNLIMITED = 1_000_000
"""Envoy's own limit of 1,024 connections and requests is met by a few hundred clients of streaming answers."""

MAX_RETRIES = 1_000
"""With Envoy's own 3, one refusing endpoint of two gave 162 of 400 requests a 503; with this none."""

HTTP1_IDLE = timedelta(seconds=4)
"""Below the 5 s after which uvicorn, which most model servers run on, closes an idle connection: a request sent
into a closing connection is lost, and one that may have reached a model is not repeated."""


def cluster(service: Ref, backend: Backend) -> Rendered:
    """The cluster of a backend; its endpoints come in an assignment of the same name."""
    name = names.cluster(service, backend.name)
    message = Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=_from_ads(),
        connect_timeout=milliseconds(backend.connect_timeout),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        circuit_breakers=_limits(),
        typed_extension_protocol_options={HTTP_OPTIONS: _protocol(backend.protocol, backend.preserve_case)},
        transport_socket=None if backend.tls is None else upstream_tls(backend.tls, http2=backend.protocol.http2),
        # A removed endpoint is gone at once, whatever health checks say of it.
        ignore_health_on_host_removal=True,
        upstream_connection_options=_keepalive(),
        lrs_server=_this_server(),
    )
    return Rendered(ResourceType.CLUSTER, name, message, backend.origin)


@shared
def _from_ads() -> ClusterEdsClusterConfig:
    return ClusterEdsClusterConfig(eds_config=ads())


@shared
def _this_server() -> ConfigSource:
    """Where load reports go: to where the cluster is from.

    Envoy 1.40 reports all its clusters once its bootstrap says where to; this is for who goes by the API.
    """
    return ConfigSource(self=SelfConfigSource())


@shared
def _limits() -> CircuitBreakers:
    thresholds = CircuitBreakersThresholds(
        max_connections=UNLIMITED,
        max_pending_requests=UNLIMITED,
        max_requests=UNLIMITED,
        max_retries=MAX_RETRIES,
    )
    return CircuitBreakers(thresholds=[thresholds])


@shared
def _keepalive() -> UpstreamConnectionOptions:
    keepalive = TcpKeepalive(keepalive_time=60, keepalive_interval=10, keepalive_probes=3)
    return UpstreamConnectionOptions(tcp_keepalive=keepalive)


@shared
def _protocol(protocol: Protocol, preserve_case: bool) -> Any:  # noqa: FBT001 - by position, as `shared` takes them
    return Any.pack(_http2() if protocol.http2 else _http1(header_case() if preserve_case else None))


def _http1(case: Http1ProtocolOptionsHeaderKeyFormat | None) -> HttpProtocolOptions:
    return HttpProtocolOptions(
        common_http_protocol_options=CommonHttpProtocolOptions(idle_timeout=HTTP1_IDLE),
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http_protocol_options=Http1ProtocolOptions(header_key_format=case)
        ),
    )


def _http2() -> HttpProtocolOptions:
    return HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    )
