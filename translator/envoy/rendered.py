"""What renderers give: a message with its name, what it depends on, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from betterproto2 import Message

from translator.envoy.shared import shared
from translator.objects.ref import Origin
from xds.api.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Http1ProtocolOptionsHeaderKeyFormat,
    TypedExtensionConfig,
)
from xds.api.envoy.extensions.http.header_formatters.preserve_case.v3 import PreserveCaseFormatterConfig
from xds.api.google.protobuf import Any
from xds.types import ResourceType


@dataclass(frozen=True, slots=True)
class Rendered:
    """A resource before it is encoded; ``uses`` are the clusters that a route configuration sends to.

    ``shared`` are those of its shared messages that are worth holding once for all resources that have them.
    """

    type: ResourceType
    name: str
    message: Message
    origin: Origin
    uses: frozenset[str] = frozenset()
    shared: tuple[Message, ...] = ()


@shared
def ads() -> ConfigSource:
    """From this very stream.

    Without a fetch timeout Envoy waits for what it asked for rather than going on without it: a listener without
    routes would answer 404, a cluster without endpoints 503.
    """
    return ConfigSource(
        ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3, initial_fetch_timeout=timedelta()
    )


@lru_cache(1024)
def milliseconds(value: int) -> timedelta:
    """A plan's duration."""
    return timedelta(milliseconds=value)


def header(name: str, value: str) -> HeaderValueOption:
    """A header that takes the place of any other of its name."""
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def header_case() -> Http1ProtocolOptionsHeaderKeyFormat:
    """HTTP/1 keeps the case of header names, which Envoy writes in lower case otherwise.

    A request's names are kept by the listener that reads them, an answer's by the cluster.
    """
    formatter = TypedExtensionConfig(name="preserve_case", typed_config=Any.pack(PreserveCaseFormatterConfig()))
    return Http1ProtocolOptionsHeaderKeyFormat(stateful_formatter=formatter)
