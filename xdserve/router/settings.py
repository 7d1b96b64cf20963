"""The router's settings: plain environment variables, as a pod's manifest gives them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from yarl import URL

from xdserve.router.passing import Headers
from xdserve.settings import LogFormat, LogLevel, SettingsError, short


class Overflow(StrEnum):
    """What happens to a request beyond the limit: it waits, or is refused."""

    QUEUE = "queue"
    REJECT = "reject"


class Protocol(StrEnum):
    """How a real model server is spoken to: KServe v1, the open inference protocol (v2), OpenAI."""

    V1 = "v1"
    V2 = "v2"
    OPENAI = "openai"


def _wrong(allowed: str) -> PydanticCustomError:
    return PydanticCustomError("allowed", "{allowed}", {"allowed": allowed})


def _names(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


_URL_ALLOWED = "http(s)://HOST[:PORT][/PATH] without credentials and query"


def _url(value: object) -> object:
    try:
        url = URL(str(value))
        port = url.port
    except ValueError:
        raise _wrong(_URL_ALLOWED) from None
    unwanted = url.user or url.password or url.query_string or url.fragment
    if url.scheme not in {"http", "https"} or not url.host or not port or unwanted:
        raise _wrong(_URL_ALLOWED)
    return str(value).rstrip("/")


Port = Annotated[int, Field(ge=0, le=65535)]
Printable = Annotated[str, Field(max_length=256, pattern=r"^[\x20-\x7e]*$")]


class RouterSettings(BaseModel):
    """What the router is told. Frozen: a setting changes with a restart.

    A field's name in capitals is its variable. A variable that is empty counts as not given.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, protected_namespaces=())

    model_ref: str = Field("default-model", max_length=1024, description="Name of the model")
    max_concurrency: int = Field(10, ge=1, le=1_000_000, description="Requests that run at once, at most")
    overflow: Overflow = Field(
        Overflow.QUEUE, description="What happens to a request beyond `MAX_CONCURRENCY`: it waits, or is refused"
    )
    queue_limit: int = Field(1000, ge=0, le=1_000_000, description="Requests that wait, at most; more are refused")
    kv_endpoints: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        (), description="Endpoints of key-value caches, named in each answer of `/infer`"
    )
    hostname: Printable = Field("", description="Name of the pod, given as `routerPod`; without it the host's name")
    variant: Printable = Field("", description="Who the simulation says it is; without it `HOSTNAME`")
    processing_ms: float = Field(
        0,
        ge=0,
        le=3_600_000,
        allow_inf_nan=False,
        description="Milliseconds that the simulation works on a request, and that it rests between parts of a stream",
    )
    address: str = Field("0.0.0.0", description="Where to listen")  # noqa: S104 - a pod's own address
    port: Port = Field(8080, description="Port of HTTP; 0 takes a free one, which the log says")
    grpc_port: Port | None = Field(
        None, description="Port of the simulation's open inference protocol over gRPC; without it there is none"
    )
    max_body_bytes: int = Field(64 * 2**20, ge=1, le=2**31 - 1, description="Size of a request's body, at most")
    max_held_bytes: int | None = Field(
        None,
        ge=1,
        le=2**40,
        description="Size of the bodies of all requests that are read, wait or run, at most; more are refused. "
        "Without it 256 MiB, or four times `MAX_BODY_BYTES`, whichever is more",
    )
    body_timeout_seconds: float = Field(
        60, gt=0, le=86_400, allow_inf_nan=False, description="Longest wait for the next part of a request's body"
    )
    upstream_url: Annotated[str, BeforeValidator(_url)] | None = Field(
        None, description="A real model server, in place of the simulation"
    )
    upstream_protocol: Protocol = Field(Protocol.V1, description="How the real model server is spoken to")
    upstream_headers: Headers = Field(
        Headers.TRACE,
        description="What goes on to the real model server: the headers of the trace, or all of the client's with its "
        "host and query; then cookies come back",
    )
    upstream_timeout_seconds: float = Field(
        600, gt=0, le=86_400, allow_inf_nan=False, description="Longest wait for the real model server's whole answer"
    )
    drain_seconds: float = Field(
        0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Time after SIGTERM in which requests are still taken, while `/readyz` says 503",
    )
    shutdown_seconds: float = Field(
        30,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Time for running and waiting requests, from then on that none are taken",
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="Least severe messages to log")
    log_format: LogFormat = Field(
        LogFormat.AUTO, description="Form of the log: auto is console on a terminal, json elsewhere"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> RouterSettings:
        if self.held < self.max_body_bytes:
            raise _wrong("MAX_HELD_BYTES: found less than MAX_BODY_BYTES, allowed as much or more")
        if self.grpc_port is not None and self.upstream_url is not None:
            raise _wrong("GRPC_PORT: found beside UPSTREAM_URL, allowed with the simulation alone")
        return self

    @property
    def waiting(self) -> int:
        """How many requests may wait."""
        return self.queue_limit if self.overflow is Overflow.QUEUE else 0

    @property
    def held(self) -> int:
        """How many bytes of bodies may be held."""
        return self.max_held_bytes or max(256 * 2**20, 4 * self.max_body_bytes)

    @property
    def answers_as(self) -> str:
        """The variant that the simulation names in its answers."""
        return self.variant or self.hostname


def variable_of(setting: str) -> str:
    """``model_ref`` -> ``MODEL_REF``."""
    return setting.upper()


def load(environment: Mapping[str, str] | None = None) -> RouterSettings:
    """Read the settings from environment variables.

    Raises:
        SettingsError: one line for each wrong variable: its name, what was found, what is allowed.
    """
    environment = os.environ if environment is None else environment
    given = {name: environment.get(variable_of(name), "").strip() for name in RouterSettings.model_fields}
    values: dict[str, Any] = {name: value for name, value in given.items() if value}
    # Kubernetes sets GRPC_PORT=tcp://ADDRESS:PORT in every pod beside a Service called `grpc`.
    if values.get("grpc_port", "").startswith("tcp://"):
        del values["grpc_port"]
    values.setdefault("hostname", socket.gethostname())
    try:
        settings = RouterSettings(**values)
    except ValidationError as error:
        raise SettingsError([_line(details, values) for details in error.errors(include_url=False)]) from None
    return settings


_ALLOWED = {
    "enum": "{expected}",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than_equal": "{ge:g} or more",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "{le:g} or less",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "printable ASCII characters",
    "allowed": "{allowed}",
}


def _line(details: ErrorDetails, values: Mapping[str, str]) -> str:
    known = _ALLOWED.get(details["type"], details["msg"].replace("{", "{{").replace("}", "}}"))
    allowed = known.format(**details.get("ctx", {}))
    if not details["loc"]:
        return allowed
    name = str(details["loc"][0])
    # An address may have credentials in it.
    found = "what is no such address" if name == "upstream_url" else short(values[name])
    return f"{variable_of(name)}: found {found}, allowed {allowed}"
