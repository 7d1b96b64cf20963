"""A gateway's listener: what no edit of a policy changes.

A changed listener cuts the streams that run through it when its drain time is over, so everything that users edit is in
routes, clusters and endpoints. Only a ServiceGateway decides about what is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from betterproto2 import Message

from translator import names
from translator.envoy.limits import BUFFER_LIMIT, CONNECTION_IDLE, HEADERS_KIB, HEADERS_TIMEOUT
from translator.envoy.local_replies import local_replies
from translator.envoy.rendered import Rendered, ads, header, header_case, milliseconds
from translator.envoy.shared import shared
from translator.envoy.splits import UNIQUE_ID
from translator.objects.fields import DROPPED_HEADERS, DROPPED_PREFIXES, HEADERS_OF_PROXIES
from translator.objects.gateway import IPV6_ANY
from translator.plan import Edge, EscapedSlashes, GatewayPlan, Underscores
from xds.api.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from xds.api.envoy.config.core.v3 import (
    Address,
    CidrRange,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    SocketAddress,
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
    Rds,
)
from xds.api.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from xds.api.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from xds.api.google.protobuf import Any
from xds.types import ResourceType

NOBODY = CidrRange(address_prefix="255.255.255.255", prefix_len=32)
"""Whom Envoy trusts as internal: what comes from a private address is a client like any other, whose request id is
not kept. No client has this address; with an empty list Envoy trusts all private ones (tried)."""

IGNORED_UPGRADES = ("TLS/", "HTTP/", "h2c")
"""Java's clients offer TLS within plain text, alone or beside a version of HTTP. A server that does not know an upgrade
ignores it (RFC 9110, 7.8)."""

UNDERSCORES = {
    Underscores.REJECT: HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
    Underscores.DROP: HttpProtocolOptionsHeadersWithUnderscoresAction.DROP_HEADER,
    Underscores.ALLOW: HttpProtocolOptionsHeadersWithUnderscoresAction.ALLOW,
}

ESCAPED_SLASHES = {
    EscapedSlashes.REDIRECT: HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_REDIRECT,
    EscapedSlashes.KEEP: HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED,
    EscapedSlashes.REJECT: HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST,
}


def listener(gateway: GatewayPlan) -> Rendered:
    """The one listener of a gateway."""
    connection_manager = _manager(gateway)
    manager = Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(connection_manager))
    message = Listener(
        name=names.LISTENER,
        address=_address(gateway.address, gateway.port),
        filter_chains=[FilterChain(filters=[manager])],
        per_connection_buffer_limit_bytes=BUFFER_LIMIT,
        traffic_direction=TrafficDirection.INBOUND,
    )
    return Rendered(ResourceType.LISTENER, message.name, message, gateway.origin, shared=_shared(connection_manager))


def _shared(manager: HttpConnectionManager) -> tuple[Message, ...]:
    """The messages that most gateways have in common, five sixths of a listener; by field number."""
    large = (*manager.http_filters, manager.local_reply_config, *manager.early_header_mutation_extensions)
    return tuple(message for message in large if message is not None)


@shared
def _address(host: str, port: int) -> Address:
    """The address of all interfaces takes both families, as a pod of a cluster with IPv6 may have both."""
    return Address(socket_address=SocketAddress(address=host, port_value=port, ipv4_compat=host == IPV6_ANY))


def _manager(gateway: GatewayPlan) -> HttpConnectionManager:
    """HTTP/1, HTTP/2 and gRPC on one port, hardened as an edge."""
    edge = gateway.edge
    return HttpConnectionManager(
        stat_prefix="gateway",
        rds=Rds(config_source=ads(), route_config_name=gateway.name),
        http_filters=[_drop_from_answers(), _router()],
        common_http_protocol_options=_http(edge.underscores),
        http_protocol_options=_http1(edge, gateway.default_host),
        http2_protocol_options=_http2(edge),
        upgrade_configs=[_websocket()],
        server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        request_timeout=milliseconds(edge.request_timeout),
        request_headers_timeout=HEADERS_TIMEOUT,
        max_request_headers_kb=HEADERS_KIB,
        use_remote_address=True,
        xff_num_trusted_hops=gateway.trusted_hops,
        internal_address_config=HttpConnectionManagerInternalAddressConfig(cidr_ranges=[NOBODY]),
        early_header_mutation_extensions=[
            _mutate_requests(gateway.trusted_hops > 0, edge.preserve_request_id, edge.underscores)
        ],
        preserve_external_request_id=edge.preserve_request_id,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=ESCAPED_SLASHES[edge.escaped_slashes],
        strip_trailing_host_dot=edge.strip_trailing_dot,
        local_reply_config=local_replies(gateway.name_backends),
    )


@shared
def _router() -> HttpFilter:
    router = Router(suppress_envoy_headers=True)
    return HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(router))


@shared
def _http(underscores: Underscores) -> HttpProtocolOptions:
    # `x_user_id` and `x-user-id` are one header to many model servers: the former could pass for a checked one.
    return HttpProtocolOptions(idle_timeout=CONNECTION_IDLE, headers_with_underscores_action=UNDERSCORES[underscores])


def _http1(edge: Edge, default_host: str) -> Http1ProtocolOptions:
    return Http1ProtocolOptions(
        accept_http_10=edge.http10,
        default_host_for_http_10=default_host if edge.http10 else "",
        ignore_http_11_upgrade=[_ignored(word) for word in IGNORED_UPGRADES] if edge.ignore_tls_upgrade else [],
        header_key_format=header_case() if edge.preserve_case else None,
    )


@shared
def _ignored(prefix: str) -> StringMatcher:
    return StringMatcher(prefix=prefix, ignore_case=True)


@shared
def _http2(edge: Edge) -> Http2ProtocolOptions:
    return Http2ProtocolOptions(
        max_concurrent_streams=edge.concurrent_streams,
        initial_stream_window_size=edge.stream_window,
        initial_connection_window_size=edge.connection_window,
        # A malformed request resets its own stream, not those of the other clients of a proxy in front.
        override_stream_error_on_invalid_http_message=True,
    )


@shared
def _websocket() -> HttpConnectionManagerUpgradeConfig:
    return HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")


@shared
def _mutate_requests(
    behind_proxies: bool,  # noqa: FBT001 - by position, as `shared` takes them
    preserve_request_id: bool,  # noqa: FBT001
    underscores: Underscores,
) -> TypedExtensionConfig:
    """Clients have no say in what proxies' own headers ask for, before anything reads them."""
    names = DROPPED_HEADERS if behind_proxies else (*HEADERS_OF_PROXIES, *DROPPED_HEADERS)
    own = HeaderMutation(append=header(UNIQUE_ID, "%UNIQUE_ID%"))
    mutations = [
        *(_without(StringMatcher(prefix=prefix)) for prefix in DROPPED_PREFIXES),
        *(HeaderMutation(remove=name) for name in names),
        *(_in_other_spellings(names) if underscores is Underscores.ALLOW else ()),
        own if preserve_request_id else HeaderMutation(remove=UNIQUE_ID),
    ]
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=Any.pack(EarlyHeaderMutation(mutations=mutations)),
    )


def _in_other_spellings(names: Sequence[str]) -> Iterator[HeaderMutation]:
    """Servers by WSGI's rules take ``x_real_ip`` for ``x-real-ip``."""
    for name in (*names, *(f"{prefix}.*" for prefix in DROPPED_PREFIXES)):
        yield _without(StringMatcher(safe_regex=RegexMatcher(regex=name.replace("-", "[-_]"))))


@shared
def _drop_from_answers() -> HttpFilter:
    """Nobody is told of the Envoys inside, neither of this one nor of one beside a model."""
    mutations = Mutations(response_mutations=[_without(StringMatcher(prefix="x-envoy-"))])
    return HttpFilter(
        name="envoy.filters.http.header_mutation",
        typed_config=Any.pack(HeaderMutationFilter(mutations=mutations)),
    )


def _without(names: StringMatcher) -> HeaderMutation:
    return HeaderMutation(remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=names))
