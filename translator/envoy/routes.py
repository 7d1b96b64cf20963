"""Hosts and routes to a route configuration: one for each service."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from translator import names
from translator.envoy import local_replies
from translator.envoy.matches import route_match
from translator.envoy.rendered import Rendered, header
from translator.envoy.shared import shared
from translator.envoy.splits import legs
from translator.objects.ref import Ref
from translator.plan import Host, Match, Reply, ServicePlan, Split
from translator.plan import Route as PlannedRoute
from xds.api.envoy.config.core.v3 import DataSource, HeaderValueOption
from xds.api.envoy.config.route.v3 import (
    DirectResponseAction,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
    Route,
    RouteConfiguration,
    VirtualHost,
)
from xds.api.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from xds.api.google.protobuf import Any
from xds.types import ResourceType

PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"

RETRY_ON = "connect-failure,refused-stream,reset-before-request"
"""Only what has never reached a model."""

RETRIES = 8
"""Nine tries. While 8 pods became 1, 22 of 1,204 requests failed with 2 retries, and none of 1,197 with 8."""

HOST_ATTEMPTS = 1_000
"""How often another host is looked for. Endpoints that refuse are the least loaded ones, so of eight the one that
lives is chosen once in 64 times: with 32 attempts 37 of 600 requests failed while seven were gone, with these none."""


def route_configuration(plan: ServicePlan) -> Rendered:
    """The routes of a service."""
    message = RouteConfiguration(
        name=names.route_configuration(plan.service),
        virtual_hosts=[_virtual_host(plan.service, host) for host in plan.hosts],
        ignore_port_in_host_matching=True,
    )
    return Rendered(ResourceType.ROUTE, message.name, message, plan.origin, _uses(plan))


def _uses(plan: ServicePlan) -> frozenset[str]:
    return frozenset(
        names.cluster(plan.service, share.backend)
        for host in plan.hosts
        for route in host.routes
        if isinstance(route.action, Split)
        for share in route.action.shares
    )


def _virtual_host(service: Ref, host: Host) -> VirtualHost:
    return VirtualHost(
        name=host.name,
        domains=list(host.domains),
        routes=[message for route in host.routes for message in _routes(service, route, host.max_request_bytes)],
        request_headers_to_add=list(_request_headers(host.request_headers)),
        retry_policy=_retries(),
        request_body_buffer_limit=host.max_request_bytes,
    )


@lru_cache(16)
def _request_headers(headers: tuple[tuple[str, str], ...]) -> tuple[HeaderValueOption, ...]:
    """The hosts of a service have the same."""
    return tuple(header(name, value) for name, value in headers)


def _routes(service: Ref, route: PlannedRoute, max_request_bytes: int | None) -> Iterator[Route]:
    action = route.action
    if isinstance(action, Reply):
        yield _reply(route.name, route.match, action)
        return
    own = None if route.max_request_bytes == max_request_bytes else route.max_request_bytes
    for leg in legs(service, action, route.timeouts, route.below):
        yield Route(
            name=route.name + leg.suffix,
            match=route_match(route.match, *leg.conditions),
            route=leg.action,
            response_headers_to_add=[] if leg.set_cookie is None else [leg.set_cookie],
            request_body_buffer_limit=own,
        )


@shared
def _reply(name: str, match: Match, reply: Reply) -> Route:
    headers = {"content-type": "application/json"} if reply.body else {}
    if reply.retry_after is not None:
        headers["retry-after"] = str(reply.retry_after)
    return Route(
        name=name,
        match=route_match(match),
        direct_response=DirectResponseAction(
            status=reply.status, body=DataSource(inline_string=reply.body) if reply.body else None
        ),
        metadata=local_replies.metadata(reply.reason, reply.message) if reply.reason else None,
        response_headers_to_add=[header(name, value) for name, value in headers.items()],
    )


@shared
def _retries() -> RetryPolicy:
    """On another host each time: endpoints that have just gone do no harm."""
    predicate = RetryPolicyRetryHostPredicate(name=PREVIOUS_HOSTS, typed_config=Any.pack(PreviousHostsPredicate()))
    return RetryPolicy(
        retry_on=RETRY_ON,
        num_retries=RETRIES,
        retry_host_predicate=[predicate],
        host_selection_retry_max_attempts=HOST_ATTEMPTS,
    )
