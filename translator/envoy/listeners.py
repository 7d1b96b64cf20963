"""A gateway's listener: what no edit of a policy changes.

A changed listener cuts the streams that run through it when its drain time is over, so everything that users edit is in
routes, clusters and endpoints. Only a ServiceGateway decides about what is here.
"""

from __future__ import annotations

from datetime import timedelta

from translator import names
from translator.envoy.rendered import Rendered, ads, header
from translator.envoy.shared import shared
from translator.plan import RETRY_AFTER, GatewayPlan
from xds.api.envoy.config.accesslog.v3 import AccessLogFilter, ResponseFlagFilter
from xds.api.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from xds.api.envoy.config.core.v3 import (
    Address,
    CidrRange,
    DataSource,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    SocketAddress,
    SubstitutionFormatString,
    TrafficDirection,
    TypedExtensionConfig,
)
from xds.api.envoy.config.listener.v3 import Filter, FilterChain, Listener
from xds.api.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from xds.api.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from xds.api.envoy.extensions.filters.http.router.v3 import Router
from xds.api.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerInternalAddressConfig,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerServerHeaderTransformation,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
    LocalReplyConfig,
    Rds,
    ResponseMapper,
)
from xds.api.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from xds.api.envoy.type.matcher.v3 import StringMatcher
from xds.api.google.protobuf import Any
from xds.types import ResourceType

KIB = 1 << 10
BUFFER_LIMIT = 32 * KIB
MAX_STREAMS = 100
STREAM_WINDOW = 64 * KIB
CONNECTION_WINDOW = 1024 * KIB
CONNECTION_IDLE = timedelta(hours=1)
HEADERS_TIMEOUT = timedelta(seconds=10)
"""Envoy's "Configuring Envoy as an edge proxy"; that page's request timeout is left out: answers stream for long."""

NOBODY = CidrRange(address_prefix="255.255.255.255", prefix_len=32)
"""Whom Envoy trusts as internal: what comes from a private address is a client like any other, whose request id is
not kept. No client has this address; with an empty list Envoy trusts all private ones (tried)."""

UNAVAILABLE_FLAGS = ("UH", "UF", "UC", "UT", "NC", "LR", "UR", "URX")
"""What Envoy says when a backend is missing, refuses, breaks off or takes too long."""


def listener(gateway: GatewayPlan) -> Rendered:
    """The one listener of a gateway."""
    manager = Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(_manager(gateway)))
    message = Listener(
        name=names.LISTENER,
        address=_address(gateway.address, gateway.port),
        filter_chains=[FilterChain(filters=[manager])],
        per_connection_buffer_limit_bytes=BUFFER_LIMIT,
        traffic_direction=TrafficDirection.INBOUND,
    )
    return Rendered(ResourceType.LISTENER, message.name, message, gateway.origin)


@shared
def _address(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def _manager(gateway: GatewayPlan) -> HttpConnectionManager:
    """HTTP/1.1, HTTP/2 and gRPC on one port, hardened as an edge."""
    return HttpConnectionManager(
        stat_prefix="gateway",
        rds=Rds(config_source=ads(), route_config_name=gateway.name),
        http_filters=[_drop_from_answers(), _router()],
        common_http_protocol_options=_http(),
        http2_protocol_options=_http2(),
        upgrade_configs=[_websocket()],
        server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        request_headers_timeout=HEADERS_TIMEOUT,
        use_remote_address=True,
        xff_num_trusted_hops=gateway.trusted_hops,
        internal_address_config=HttpConnectionManagerInternalAddressConfig(cidr_ranges=[NOBODY]),
        early_header_mutation_extensions=[_drop_from_requests()],
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_REDIRECT,
        local_reply_config=_local_replies(),
    )


@shared
def _router() -> HttpFilter:
    router = Router(suppress_envoy_headers=True)
    return HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(router))


@shared
def _http() -> HttpProtocolOptions:
    return HttpProtocolOptions(
        idle_timeout=CONNECTION_IDLE,
        # `x_user_id` and `x-user-id` are one header to many model servers: the former could pass for a checked one.
        headers_with_underscores_action=HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
    )


@shared
def _http2() -> Http2ProtocolOptions:
    return Http2ProtocolOptions(
        max_concurrent_streams=MAX_STREAMS,
        initial_stream_window_size=STREAM_WINDOW,
        initial_connection_window_size=CONNECTION_WINDOW,
    )


@shared
def _websocket() -> HttpConnectionManagerUpgradeConfig:
    return HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")


@shared
def _drop_from_requests() -> TypedExtensionConfig:
    """Clients have no say in what Envoy's own headers ask for: timeouts, retries, other hosts."""
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=Any.pack(EarlyHeaderMutation(mutations=[_without_envoy_headers()])),
    )


@shared
def _drop_from_answers() -> HttpFilter:
    """Nobody is told of the Envoys inside, neither of this one nor of one beside a model."""
    mutations = Mutations(response_mutations=[_without_envoy_headers()])
    return HttpFilter(
        name="envoy.filters.http.header_mutation",
        typed_config=Any.pack(HeaderMutationFilter(mutations=mutations)),
    )


def _without_envoy_headers() -> HeaderMutation:
    matcher = HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix="x-envoy-"))
    return HeaderMutation(remove_on_match=matcher)


@shared
def _local_replies() -> LocalReplyConfig:
    return LocalReplyConfig(mappers=[_unavailable()])


def _unavailable() -> ResponseMapper:
    """Envoy's own failures in the form of the gateway's other answers, with a word on when to try again."""
    body = '{"error": {"code": %RESPONSE_CODE%, "reason": "BackendFailed", "message": "%RESPONSE_CODE_DETAILS%"}}\n'
    return ResponseMapper(
        filter=AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(UNAVAILABLE_FLAGS))),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string=body), content_type="application/json"
        ),
        headers_to_add=[header("retry-after", str(RETRY_AFTER))],
    )
