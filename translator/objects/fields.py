"""The kinds of text that xdserve's own objects are made of, each with the words for what is allowed."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated

import re2
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from translator.objects.refusal import refuse, says

# GEP-2257, the durations of Gateway API.
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_DURATION_PART = re.compile(r"([0-9]+)(ms|h|m|s)")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_LARGEST_NUMBER = 99_999
DURATION = _DURATION.pattern
DURATION_WORDS = "a duration such as 300ms, 5m or 0s"
POSITIVE_DURATION_WORDS = "a duration above 0s"

_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HEADER_NAME = re.compile(_TCHARS.replace("_", ""))
_TEXT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*")
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")

DROPPED_PREFIXES = ("x-envoy-", "knative-serving-")
"""Headers of clients that gateways drop: by the first Envoy takes orders on timeouts and retries, by the second Knative
sends to other revisions."""

DROPPED_HEADERS = ("x-original-url", "x-rewrite-url", "k-network-hash")
"""The same: frameworks serve the path in the first two, and Knative's activator believes the third."""

HEADERS_OF_PROXIES = ("forwarded", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-real-ip")
"""Headers by which a proxy in front says where a request came from: dropped unless such proxies are trusted."""

LONGEST_EXPRESSION = 1024
# Envoy's own limit is 100, which a list of a dozen names exceeds; the bootstrap raises it, far beyond this.
LARGEST_PROGRAM = 10_000


def _milliseconds(value: object) -> int:
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise refuse(DURATION_WORDS)
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _DURATION_PART.findall(value))


def _more_than_none(value: object) -> int:
    milliseconds = _milliseconds(value)
    if milliseconds == 0:
        raise refuse(POSITIVE_DURATION_WORDS)
    return milliseconds


def duration(milliseconds: int) -> str:
    """The text of a duration that was read: ``1500ms``, ``5m``, ``1h500ms``, ``0s``.

    Raises:
        ValueError: no text of four parts says it.
    """
    parts = _parts(milliseconds, 4) if milliseconds else ["0s"]
    if parts is None:
        raise ValueError(f"{milliseconds} ms is no duration")
    return "".join(parts)


def _parts(milliseconds: int, most: int) -> list[str] | None:
    """At most so many numbers of five digits; one number if that is enough."""
    for unit, size in _MILLISECONDS.items():
        number, rest = divmod(milliseconds, size)
        if 0 < number <= _LARGEST_NUMBER and not rest:
            return [f"{number}{unit}"]
    for unit, size in _MILLISECONDS.items():
        number = min(milliseconds // size, _LARGEST_NUMBER)
        if number and most > 1 and (rest_of_it := _parts(milliseconds - number * size, most - 1)):
            return [f"{number}{unit}", *rest_of_it]
    return None


def _header_name(value: object) -> str:
    if not isinstance(value, str) or not _HEADER_NAME.fullmatch(value) or len(value) > 256:
        raise refuse("a header's name (RFC 9110) without underscores, which gateways refuse")
    if value.lower() == "host":
        raise refuse("any header but host: a gateway's hosts are its own")
    name = value.lower()
    if name in DROPPED_HEADERS or name.startswith(DROPPED_PREFIXES):
        dropped = ", ".join((*DROPPED_HEADERS, *(f"{prefix}*" for prefix in DROPPED_PREFIXES)))
        raise refuse(f"any header but {dropped}, which gateways drop")
    return name


def _host(value: object) -> str:
    if isinstance(value, str) and len(value) <= 253 and _HOST.fullmatch(value.lower()):
        host = value.lower()
        if not is_address(host):
            return host
    raise refuse("a DNS name, or *. and one")


@lru_cache(maxsize=65536)
def is_address(text: str) -> bool:
    """Whether Envoy takes it for the address of a socket: an IP literal without a zone."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _literal_address(value: object) -> str:
    if not isinstance(value, str) or not is_address(value):
        raise refuse("an IP address")
    return value


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("control characters")
    return value


# What it may be besides is a rule of the CRDs, which has words: a pattern would be all that users read.
_DURATION_SCHEMA = WithJsonSchema({"type": "string", "maxLength": 64})

_AS_DURATION = PlainSerializer(duration, return_type=str, when_used="json")

Milliseconds = Annotated[int, BeforeValidator(_milliseconds), _AS_DURATION, _DURATION_SCHEMA]
PositiveMilliseconds = Annotated[int, BeforeValidator(_more_than_none), _AS_DURATION, _DURATION_SCHEMA]
DnsLabel = Annotated[
    str, Field(max_length=63, pattern=rf"^{_LABEL}$"), says("a DNS label: a-z, 0-9 and -, at most 63 characters")
]
DnsName = Annotated[
    str,
    Field(max_length=253, pattern=rf"^{_LABEL}(\.{_LABEL})*$"),
    says("a DNS name in lower case, at most 253 characters"),
]
ConfigMapKey = Annotated[
    str, Field(max_length=253, pattern=r"^[-._a-zA-Z0-9]+$"), says("a key of a ConfigMap: letters, digits, -, _ and .")
]
ObjectName = Annotated[
    str,
    Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
    says("a name: a-z, 0-9, - and ., at most 253 characters"),
]
PortNumber = Annotated[int, Field(ge=1, le=65535), says("1..65535")]
HeaderName = Annotated[str, BeforeValidator(_header_name), Field(max_length=256)]
CookieName = Annotated[
    str, Field(min_length=1, max_length=256, pattern=rf"^{_TCHARS}$"), says("a cookie's name (RFC 6265)")
]
QueryName = Annotated[
    str,
    Field(min_length=1, max_length=256),
    AfterValidator(_text),
    says("1 to 256 characters, none a control character"),
]
PlainWord = Annotated[
    str, Field(max_length=253, pattern=r"^[!-~]+$"), says("1 to 253 printable characters of ASCII without blanks")
]
KvEndpoint = Annotated[
    str,
    Field(max_length=253, pattern=r"^[!-+\--~]+$"),
    says("1 to 253 printable characters of ASCII without blanks and commas"),
]
Host = Annotated[str, BeforeValidator(_host), Field(max_length=253)]
IpAddress = Annotated[str, BeforeValidator(_literal_address)]


def is_domain(text: str) -> bool:
    """Whether it is a DNS name in lower case."""
    return len(text) <= 253 and _HOST.fullmatch(text) is not None and not text.startswith("*")


def is_text(value: str) -> bool:
    """Whether a request can have it: no control character, and nothing that has no UTF-8."""
    return _TEXT.fullmatch(value) is not None


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1  # Envoy's: a pattern is bytes
    return options


_OPTIONS = _options()


@lru_cache(maxsize=4096)
def expression_problem(expression: str) -> str | None:
    """Why Envoy, which runs RE2, would refuse a regular expression; None if it takes it."""
    if len(expression) > LONGEST_EXPRESSION:
        return f"at most {LONGEST_EXPRESSION} characters"
    try:
        compiled = re2.compile(expression.encode(), _OPTIONS)
    except UnicodeEncodeError:
        return "characters that have UTF-8"
    except re2.error as error:
        words = error.args[0]
        return words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    if compiled.programsize > LARGEST_PROGRAM:
        return f"a program of at most {LARGEST_PROGRAM} steps, this one has {compiled.programsize}"
    return None


def matches_whole(expression: str, text: str) -> bool:
    """Whether Envoy finds that all of a text matches an expression without `expression_problem`."""
    return re2.fullmatch(expression.encode(), text.encode(), _OPTIONS) is not None
