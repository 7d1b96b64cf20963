"""The answers that Envoy gives itself, in forms that clients can read.

``LOCAL_REPLIES`` is the table; docs/edge.md is made from it. A cause is told by response flags or by the request where
these tell it, else by the status. The gateway's own direct responses stay as they are, but for clients of another form.

A reply has three forms: gRPC clients read a status and a message, clients of OpenAI's paths its error shape, all others
the JSON form. The last two differ by a few words only, which one expression for all causes chooses (``_FORM``). With a
mapper for each form and cause every listener would be 5 KB larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from translator.envoy.limits import HEADERS_KIB, HEADERS_TIMEOUT, MOST_HEADERS
from translator.envoy.matches import UNSAFE
from translator.envoy.rendered import header
from translator.envoy.shared import shared
from translator.plan import RETRY_AFTER, Unsafe
from xds.api.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    ExtensionFilter,
    HeaderFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from xds.api.envoy.config.core.v3 import (
    DataSource,
    HeaderValueOption,
    Metadata,
    RuntimeUInt32,
    SubstitutionFormatString,
)
from xds.api.envoy.config.route.v3 import HeaderMatcher
from xds.api.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from xds.api.envoy.extensions.filters.network.http_connection_manager.v3 import LocalReplyConfig, ResponseMapper
from xds.api.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from xds.api.google.protobuf import Any, Struct, Value

INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = 3, 4, 8, 12, 14
"""gRPC's status codes. What a reply does not say, Envoy derives from the HTTP status: 502, 503 UNAVAILABLE, 404
UNIMPLEMENTED."""

OPENAI_PATHS = r"^(/openai)?/v1/(models|(chat/completions|completions|embeddings|responses)(/[^?]*)?)([?].*)?$"
"""Paths of OpenAI's API, also below KServe's prefix. Below ``/v1/models`` is KServe's own API."""

METADATA = "xdserve"

GRPC_TYPES = r"application/grpc(\+.*)?"
"""The content types that Envoy takes for gRPC; gRPC-Web is not among them."""


@dataclass(frozen=True, slots=True)
class LocalReply:
    """An answer by Envoy: when it is given, and what it says.

    It fits if one of ``flags`` is set, or if the details are ``details``; else if Envoy's status is ``status``, and the
    request has the header ``request``, which a route of its own refuses, where there is one. ``grpc``: a gRPC client's
    message is the reason and the message, not the JSON form. ``grpc_status`` is its status, where it does not follow
    from HTTP's. ``more`` are further headers.
    """

    status: int
    reason: str
    message: str
    when: str
    flags: tuple[str, ...] = ()
    details: str = ""
    request: HeaderMatcher | None = None
    grpc: bool = False
    grpc_status: int | None = None
    retry_after: bool = False
    more: tuple[tuple[str, str], ...] = ()


LOCAL_REPLIES = (
    LocalReply(
        504, "RequestTimeout", "the backend has not answered within the request timeout",
        "`timeouts.request` is over before the answer has begun; later the answer is cut",
        flags=("UT",), grpc=True, grpc_status=DEADLINE_EXCEEDED,
    ),
    LocalReply(
        504, "IdleTimeout", "no byte was sent within the idle timeout",
        "`timeouts.idle` is over before the answer has begun; 408 where the request has not arrived whole",
        flags=("SI",), grpc=True, grpc_status=DEADLINE_EXCEEDED,
    ),
    LocalReply(
        502, "BackendProtocolError", "the answer of the backend is not valid HTTP",
        f"a backend breaks HTTP, or its answer has more than {MOST_HEADERS} headers", flags=("UPE",), grpc=True,
    ),
    LocalReply(
        503, "BackendFailed", "the backend could not be reached or broke the connection",
        "every try failed, a backend broke the connection before it answered, or it has no endpoint",
        flags=("UH", "UF", "UC", "NC", "LR", "UR", "URX"), grpc=True, retry_after=True,
    ),
    LocalReply(
        503, "Overloaded", "the gateway has too many requests", "a limit of the gateway's own is reached",
        flags=("UO", "OM"), grpc=True, retry_after=True,
    ),
    LocalReply(
        400, "BadHost", "the host is no plain host name", "two Host headers, or user information in the host",
        request=UNSAFE[Unsafe.HOST], grpc=True, grpc_status=INVALID_ARGUMENT,
    ),
    LocalReply(
        405, "MethodNotAllowed", "the method is not allowed", "the method is TRACE, or is not in upper case",
        request=UNSAFE[Unsafe.METHOD], grpc=True, grpc_status=UNIMPLEMENTED,
        more=(("allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"),),
    ),
    LocalReply(
        400, "BadPath", "the path has an escaped control character",
        "`%00` to `%1F` or `%7F` in a path, where the service has rules by path, or an explainer",
        request=UNSAFE[Unsafe.PATH], grpc=True, grpc_status=INVALID_ARGUMENT,
    ),
    LocalReply(
        507, "BodyTooLargeToRetry", "the backend could not be reached, and the body is too large to be sent again",
        "a try failed before it reached a model, and the body is larger than `buffer.maxRequestBytes`",
        grpc=True, grpc_status=UNAVAILABLE, retry_after=True,
    ),
    LocalReply(
        400, "UnderscoreInHeader", "a header has an underscore in its name",
        "an underscore in a header's name, where `edge.underscores` is `Reject`", details="http1.unexpected_underscore",
    ),
    LocalReply(
        400, "BadRequest", "the request is not valid HTTP", "no valid HTTP, no Host header, an unknown method",
        grpc=True,
    ),
    LocalReply(
        403, "UpgradeRefused", "websocket is the only upgrade", "an upgrade to another protocol",
        details="upgrade_failed",
    ),
    LocalReply(404, "NotFound", "no route takes this request", "no route fits, as for the method CONNECT", grpc=True),
    LocalReply(
        408, "RequestIncomplete", "the request did not arrive in time",
        f"the headers took longer than {HEADERS_TIMEOUT.seconds}s, or the body longer than `edge.requestTimeout`",
        grpc=True, grpc_status=DEADLINE_EXCEEDED,
    ),
    LocalReply(
        413, "RequestTooLarge", "the body is too large", "not given yet: no filter reads whole bodies",
        grpc=True, grpc_status=RESOURCE_EXHAUSTED,
    ),
    LocalReply(426, "UpgradeRequired", "HTTP/1.0 is not served", "HTTP/1.0, where `edge.http10` is `Reject`"),
    LocalReply(
        429, "TooManyRequests", "too many requests", "not given yet: nothing limits requests",
        grpc=True, grpc_status=RESOURCE_EXHAUSTED, retry_after=True,
    ),
    LocalReply(
        431, "HeadersTooLarge", f"the headers are larger than {HEADERS_KIB} KiB or more than {MOST_HEADERS}",
        f"more than {HEADERS_KIB} KiB of headers, or more than {MOST_HEADERS}",
    ),
)  # fmt: skip
"""In order: the first that fits counts."""

OTHER = LocalReply(400, "Refused", "the gateway refused the request", "any other answer of 400 and above")


@shared
def local_replies(name_backends: bool) -> LocalReplyConfig:  # noqa: FBT001 - by position, as `shared` takes them
    """The mappers of a listener. ``name_backends``: what failed, and how, is part of the message."""
    named = NAMED if name_backends else ""
    replies = [(reply, _condition(reply)) for reply in LOCAL_REPLIES]
    return LocalReplyConfig(
        mappers=[
            *(_grpc(reply, condition, "") for reply, condition in replies if reply.request),
            *(_mapper(reply, condition) for reply, condition in replies if reply.request),
            *_direct_responses(),
            *(_grpc(reply, condition, named) for reply, condition in replies if reply.grpc and not reply.request),
            *(_mapper(reply, condition) for reply, condition in replies if not reply.request),
            _mapper(OTHER, _status(ComparisonFilterOp.GE, OTHER.status)),
        ],
        body_format=_format(_FORM.replace("NAMED", named), JSON),
    )


def metadata(reason: str, message: str) -> Metadata:
    """The error of a route with a direct response, for clients that do not read its body."""
    words = {"reason": Value(string_value=reason), "message": Value(string_value=message)}
    return Metadata(filter_metadata={METADATA: Struct(fields=words)})


def _header(matcher: HeaderMatcher) -> AccessLogFilter:
    return AccessLogFilter(header_filter=HeaderFilter(header=matcher))


JSON = "application/json"

NAMED = " (%UPSTREAM_CLUSTER%: %RESPONSE_CODE_DETAILS%)"

_IS_OPENAI = f"has(request.path) && request.path.matches('{OPENAI_PATHS}')"
"""In Envoy's CEL. A request that could not be read has no path."""


_FORM = (
    '{"error": {'
    f"%CEL({_IS_OPENAI} ? (response.code < 500"
    """ ? '"type": "invalid_request_error", "param": null, "code": "'"""
    """ : '"type": "server_error", "param": null, "code": "') : '"code": ')%"""
    f"""%CEL({_IS_OPENAI} ? '' : response.code)%%CEL({_IS_OPENAI} ? '' : ', "reason": "')%"""
    '%LOCAL_REPLY_BODY%NAMED"}}\n'
)
"""JSON with a gap. A mapper's body fills it: the rest of the string that the reason is, and the beginning of the string
that the message is, as in ``BackendFailed", "message": "the backend ...``."""

_GRPC = _header(
    HeaderMatcher(name="content-type", string_match=StringMatcher(safe_regex=RegexMatcher(regex=GRPC_TYPES)))
)


def _direct_responses() -> Iterator[ResponseMapper]:
    """The gateway's own: in gRPC's and OpenAI's form if they are errors with words, else as they are.

    What is no error, as a redirect, is left as it is with them.
    """
    error = f"response.code_details == 'direct_response' && '{METADATA}' in xds.route_metadata.filter_metadata"
    reason, message = (f"%METADATA(ROUTE:{METADATA}:{word})%" for word in ("reason", "message"))
    kind = "%CEL(response.code < 500 ? 'invalid_request_error' : 'server_error')%"
    shape = f'{{"error": {{"type": "{kind}", "param": null, "code": "{reason}", "message": "{message}"}}}}\n'
    own = "response.code < 400 || response.code_details == 'direct_response'"
    yield ResponseMapper(filter=_all(_GRPC, _cel(error)), body_format_override=_format(f"{reason}: {message}"))
    yield ResponseMapper(filter=_cel(f"{error} && {_IS_OPENAI}"), body_format_override=_format(shape, JSON))
    yield ResponseMapper(filter=_cel(own), body_format_override=_format("%LOCAL_REPLY_BODY%", JSON))


def _grpc(reply: LocalReply, condition: AccessLogFilter, named: str) -> ResponseMapper:
    status = [] if reply.grpc_status is None else [header("grpc-status", str(reply.grpc_status))]
    return ResponseMapper(
        filter=_all(_GRPC, condition),
        body_format_override=_format(f"{reply.reason}: {reply.message}{named}"),
        headers_to_add=[*_retry_after(reply), *status],
    )


def _mapper(reply: LocalReply, condition: AccessLogFilter) -> ResponseMapper:
    return ResponseMapper(
        filter=condition,
        body=DataSource(inline_string=f'{reply.reason}", "message": "{reply.message}'),
        headers_to_add=[*_retry_after(reply), *(header(name, value) for name, value in reply.more)],
    )


def _retry_after(reply: LocalReply) -> list[HeaderValueOption]:
    return [header("retry-after", str(RETRY_AFTER))] if reply.retry_after else []


def _condition(reply: LocalReply) -> AccessLogFilter:
    if reply.flags:
        return AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(reply.flags)))
    if reply.details:
        return _cel(f"response.code_details == '{reply.details}'")
    if reply.request:
        return _all(_status(ComparisonFilterOp.EQ, reply.status), _header(reply.request))
    return _status(ComparisonFilterOp.EQ, reply.status)


def _status(op: ComparisonFilterOp, status: int) -> AccessLogFilter:
    # Envoy wants a key of its runtime, which is never set.
    value = RuntimeUInt32(default_value=status, runtime_key="-")
    return AccessLogFilter(status_code_filter=StatusCodeFilter(comparison=ComparisonFilter(op=op, value=value)))


def _cel(expression: str) -> AccessLogFilter:
    config = Any.pack(ExpressionFilter(expression=expression))
    return AccessLogFilter(extension_filter=ExtensionFilter(name="cel", typed_config=config))


def _all(*filters: AccessLogFilter) -> AccessLogFilter:
    return AccessLogFilter(and_filter=AndFilter(filters=list(filters)))


def _format(text: str, content_type: str = "") -> SubstitutionFormatString:
    return SubstitutionFormatString(text_format_source=DataSource(inline_string=text), content_type=content_type)
