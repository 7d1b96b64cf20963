"""The program's settings, and where each may come from.

Strongest first: a flag, an ``XDSERVE_*`` variable, the file (YAML, ``--config`` or ``XDSERVE_CONFIG``), the default.
A stronger source replaces the whole value of a setting, also where the value is a map.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
)

from bootstrap.address import ALLOWED as ADDRESS_ALLOWED
from bootstrap.address import Address
from bootstrap.router import IMAGE as ROUTER_IMAGE

ENV_PREFIX = "XDSERVE_"
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"

_MAX_FILE = 1 << 20
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(rf"\*|{_LABEL}")
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
# Kubernetes' label selectors: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels
_KEY = rf"(?:{_LABEL}(?:\.{_LABEL})*/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
_SET = rf"\(\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*\)"
_REQUIREMENT = rf"(?:!\s*{_KEY}|{_KEY}\s+(?:not)?in\s*{_SET}|{_KEY}\s*(?:==?|!=)\s*{_VALUE}|{_KEY})"
_SELECTOR = re.compile(rf"(?=.{{0,1000}}\Z)(?:{_REQUIREMENT}(?:\s*,\s*{_REQUIREMENT})*)?")
_IMAGE = re.compile(
    r"(?=.{1,512}\Z)[a-zA-Z0-9](?:[a-zA-Z0-9._/-]|:[0-9]+/)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_PATTERN = re.compile(rf"(?=.{{1,253}}\Z)(\*|(\*\.)?{_LABEL}(\.{_LABEL})*)")


class SettingsError(Exception):
    """Wrong settings; ``lines`` has one line for each wrong value."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class Word(StrEnum):
    """Sources that are no directory; a directory of that name is written ``./kubernetes``."""

    KUBERNETES = "kubernetes"


class Provision(StrEnum):
    """Which targets get a gateway's pods: all that do not say no, those that say yes, none."""

    OPT_OUT = "opt-out"
    OPT_IN = "opt-in"
    OFF = "off"


class LogLevel(StrEnum):
    """The least severe messages that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The form of the log: ``auto`` is ``console`` on a terminal and ``json`` elsewhere."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


def _wrong(allowed: str) -> PydanticCustomError:
    return PydanticCustomError("allowed", "{allowed}", {"allowed": allowed})


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    try:
        return Address.parse(value if isinstance(value, str) else "")
    except ValueError:
        raise _wrong(ADDRESS_ALLOWED.replace("1..", "0..")) from None


def _allowed_hosts(value: object) -> object:
    """Read the one-line form of flags and variables: ``NAMESPACE=PATTERN`` words, by blanks or commas."""
    if isinstance(value, str):
        value = re.split(r"[\s,]+", value.strip()) if value.strip() else []
    if not isinstance(value, list | tuple):
        return value
    hosts: dict[str, list[str]] = {}
    for word in value:
        namespace, equals, pattern = str(word).partition("=")
        if not equals:
            raise _wrong("NAMESPACE=PATTERN words, as in models=*.example.org")
        hosts.setdefault(namespace, []).append(pattern)
    return hosts


def _source(value: object) -> object:
    if isinstance(value, str):
        # Only the very word: as a path, `./kubernetes` is equal to it.
        return Word.KUBERNETES if value == Word.KUBERNETES else Path(value)
    if value is None or isinstance(value, Path):
        return value
    raise _wrong("a path or the word kubernetes")


def _names(value: object) -> object:
    """Read the one-line form of flags and variables: names, by blanks or commas."""
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    return re.split(r"[\s,]+", value.strip()) if isinstance(value, str) and value.strip() else value or ()


SourceSetting = Annotated[Word | Path | None, Field(union_mode="left_to_right"), BeforeValidator(_source)]
AddressSetting = Annotated[Address, NoDecode, BeforeValidator(_address), PlainSerializer(str)]


class Settings(BaseSettings):
    """What the program is told from outside. Frozen: a setting changes with a restart.

    No setting may be called ``port`` or ``service_*``: Kubernetes sets such variables for a Service ``xdserve``.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    source: SourceSetting = Field(
        None, description="Directory of YAML and JSON files to read and to watch, or the word kubernetes"
    )
    kubeconfig: Path | None = Field(
        None, description="Kubeconfig of the cluster; without it that of the pod, else KUBECONFIG, else ~/.kube/config"
    )
    namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        (), description="Namespaces of the cluster to read; without any, all of them"
    )
    selector: str = Field("", description="Label selector of the InferenceServices and Inferences to serve")
    provision: Provision = Field(
        Provision.OPT_OUT,
        description="Which targets get pods of a gateway; the annotation xdserve.io/gateway says else",
    )
    gateway_image: str = Field("envoyproxy/envoy:v1.40.0", description="Image of the gateways' Envoy")
    router_image: str = Field(ROUTER_IMAGE, description="Image of the router beside them: xdserve's own")
    gateway_pull_secrets: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        (), description="Secrets to pull these images with; they have to be in the namespace of each gateway"
    )
    gateway_xds_address: str | None = Field(
        None,
        description="Where gateways reach xDS; without it <release>.<namespace>.svc and the port of xds_address",
    )
    gateway_replicas: int = Field(
        2, ge=1, le=100, description="Pods of each gateway, where its ServiceGateway says no other number"
    )
    release: str = Field(
        "xdserve", description="Name of this installation in the cluster: of its Lease, its Secret, on its gateways"
    )
    # Above xds_address, whose check looks at them.
    allow_plaintext: bool = Field(
        default=False, description="Serve xDS as plain text on an address that others can reach (no TLS, no identity)"
    )
    allow_anonymous: bool = Field(
        default=False, description="Serve xDS over TLS on an address that others can reach, to whoever connects"
    )
    xds_cert: Path | None = Field(None, description="Certificate of the xDS port and its chain (PEM): turns TLS on")
    xds_key: Path | None = Field(None, description="Private key of xds_cert (PEM)", validate_default=True)
    xds_ca: Path | None = Field(
        None, description="Authorities of xds_cert (PEM), for provisioned gateways to believe", validate_default=True
    )
    xds_client_ca: Path | None = Field(
        None, description="Authorities of client certificates (PEM): every Envoy must show one (mutual TLS)"
    )
    xds_tokens: Path | None = Field(
        None, description="File of the bearer tokens of gateways (YAML, SHA-256 digests): every Envoy must send one"
    )
    trust_domain: str = Field("cluster.local", description="Trust domain of the names in client certificates")
    xds_address: AddressSetting = Field(
        Address("127.0.0.1", 18000), description="Where Envoys connect; others than loopback need TLS and an identity"
    )
    admin_address: AddressSetting = Field(
        Address("127.0.0.1", 19000), description="Where health, metrics and debug output are served"
    )
    domain: str = Field("example.com", description="Domain of derived hosts: <name>-<namespace>.<domain>")
    allowed_hosts: Annotated[Mapping[str, tuple[str, ...]], NoDecode, BeforeValidator(_allowed_hosts)] = Field(
        {}, description="Further hosts each namespace may claim: names, *.NAME or *; namespace * means every one"
    )
    name_backends_in_errors: bool = Field(
        default=False, description="Name the backend in the answers that a gateway gives itself"
    )
    trusted_hops: int = Field(
        0, ge=0, le=100, description="Proxies in front of the gateways whose X-Forwarded-For is believed"
    )
    linger: float = Field(
        5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds a cluster stays with Envoy after the last route to it is gone",
    )
    patience: float = Field(
        15.0,
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="Seconds until a missing answer of an Envoy is told, and what does not depend on it goes on",
    )
    admission_rate: float = Field(
        1000.0,
        ge=1,
        le=1_000_000,
        allow_inf_nan=False,
        description="Streams a second that are let in; more get RESOURCE_EXHAUSTED and come again",
    )
    connection_age: float = Field(
        1800.0,
        ge=0,
        le=604_800,
        allow_inf_nan=False,
        description="Seconds until a connection is ended, so that Envoys spread over replicas; 0: never",
    )
    drain: float = Field(
        5.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds over which streams are ended when the program stops",
    )
    last_good: bool = Field(
        default=True, description="Keep what Envoys accepted over a restart, to serve it where the present is refused"
    )
    state_directory: Path | None = Field(
        None, description="Where last_good is kept; without it $XDG_STATE_HOME/xdserve or ~/.local/state/xdserve"
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="Least severe messages to log")
    log_format: LogFormat = Field(
        LogFormat.AUTO, description="Form of the log: auto is console on a terminal, json elsewhere"
    )

    @property
    def state_path(self) -> Path | None:
        """``state_directory`` or its default (XDG Base Directory Specification); None without a home directory."""
        return self.state_directory or _state_home()

    @field_validator("xds_key")
    @classmethod
    def _both_or_none(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        # What is wrong itself is missing in the data, here and below: it is told once.
        if "xds_cert" in info.data and (value is None) != (info.data["xds_cert"] is None):
            raise _wrong("a file, as xds_cert is given" if value is None else "none without xds_cert")
        return value

    @field_validator("xds_ca")
    @classmethod
    def _goes_with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("xds_cert", value) is None:
            raise _wrong("none without xds_cert")
        if value is None and info.data.get("xds_cert") and info.data.get("source") is Word.KUBERNETES:
            raise _wrong("a file, as xds_cert is given: gateways have to believe it")
        return value

    @field_validator("xds_client_ca")
    @classmethod
    def _needs_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("xds_cert", value) is None:
            raise _wrong("none without xds_cert: client certificates are a part of TLS")
        return value

    @field_validator("xds_address")
    @classmethod
    def _stays_here_or_is_guarded(cls, value: Address, info: ValidationInfo) -> Address:
        if info.data.get("source") is Word.KUBERNETES:
            return value  # it has a certificate of its own there, and reviews tokens
        if not value.is_loopback and info.data.keys() >= _GUARDS and (lacking := _lacking(info.data)):
            raise _wrong(f"a loopback address: {lacking}")
        return value

    @field_validator("domain", "trust_domain")
    @classmethod
    def _is_domain(cls, value: str, info: ValidationInfo) -> str:
        if not _DOMAIN.fullmatch(value.lower()):
            raise _wrong(f"a DNS name, as in {cls.model_fields[str(info.field_name)].default}")
        return value.lower()

    @field_validator("namespaces")
    @classmethod
    def _are_namespaces(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for namespace in value:
            if not re.fullmatch(_LABEL, namespace):
                raise _wrong(f"a namespace instead of {short(namespace)}")
        return tuple(dict.fromkeys(value))

    @field_validator("gateway_pull_secrets")
    @classmethod
    def _are_secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _DOMAIN.fullmatch(name):
                raise _wrong(f"a name of a Secret instead of {short(name)}")
        return tuple(dict.fromkeys(value))

    @field_validator("selector")
    @classmethod
    def _is_selector(cls, value: str) -> str:
        if not _SELECTOR.fullmatch(value.strip()):
            raise _wrong("a label selector, as in team=models,stage in (test, live),!hidden")
        return value.strip()

    @field_validator("release")
    @classmethod
    def _is_release(cls, value: str) -> str:
        if not re.fullmatch(_LABEL, value):
            raise _wrong("a name of Kubernetes, as in xdserve")
        return value

    @field_validator("gateway_image", "router_image")
    @classmethod
    def _is_image(cls, value: str, info: ValidationInfo) -> str:
        if not _IMAGE.fullmatch(value):
            raise _wrong(f"an image, as in {cls.model_fields[str(info.field_name)].default}")
        return value

    @field_validator("gateway_xds_address")
    @classmethod
    def _can_be_reached(cls, value: str | None) -> str | None:
        if value is None:
            return None
        host, colon, port = value.lower().rpartition(":")
        if not (colon and _DOMAIN.fullmatch(host) and re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
            raise _wrong("HOST:PORT with a name of the cluster, as in xdserve.xdserve.svc:18000")
        return f"{host}:{int(port)}"

    @field_validator("allowed_hosts")
    @classmethod
    def _are_patterns(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for namespace, patterns in value.items():
            if not _NAMESPACE.fullmatch(namespace):
                raise _wrong(f"a namespace or * instead of {short(namespace)}")
            for pattern in patterns:
                if not _PATTERN.fullmatch(pattern.lower()):
                    raise _wrong(f"a DNS name, *.NAME or * instead of {short(pattern)}")
        return {namespace: tuple(p.lower() for p in patterns) for namespace, patterns in value.items()}


_GUARDS = {"allow_plaintext", "allow_anonymous", "xds_cert", "xds_client_ca", "xds_tokens"}


def _lacking(given: Mapping[str, Any]) -> str | None:
    """What keeps xDS from an address that others can reach, in words; None if nothing does."""
    identified = given["xds_client_ca"] is not None or given["xds_tokens"] is not None
    if given["xds_cert"] is not None:
        free = identified or given["allow_anonymous"]
        return None if free else "without xds_tokens or xds_client_ca any peer is served, and needs --allow-anonymous"
    if identified:
        # Also with leave for plain text: whoever reads a token once is that gateway from then on.
        return "tokens are not taken as plain text, and need xds_cert"
    return None if given["allow_plaintext"] else "without xds_cert xDS is plain text, and needs --allow-plaintext"


def _state_home() -> Path | None:
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    if home.is_absolute():  # others are to be ignored
        return home / "xdserve"
    try:
        return Path.home() / ".local" / "state" / "xdserve"
    except RuntimeError:
        return None


class _Source(NamedTuple):
    """Values of one source, and how it calls a setting when it speaks of it."""

    values: Mapping[str, Any]
    call: str  # a format for the name of the setting

    def name(self, setting: str) -> str:
        return self.call.format(flag=flag_of(setting), variable=variable_of(setting), key=setting)


def flag_of(setting: str) -> str:
    """``xds_address`` -> ``--xds-address``."""
    return "--" + setting.replace("_", "-")


def variable_of(setting: str) -> str:
    """``xds_address`` -> ``XDSERVE_XDS_ADDRESS``."""
    return ENV_PREFIX + setting.upper()


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Join flags, variables and the file into settings.

    Args:
        flags: values by setting; None counts as not given.
        config: the file; without it the one that ``XDSERVE_CONFIG`` names, if any.

    Raises:
        SettingsError: one line for each wrong value: where it came from, what was found, what is allowed.
    """
    sources = [
        _Source({name: value for name, value in (flags or {}).items() if value is not None}, "{flag}"),
        _Source(EnvSettingsSource(Settings)(), "{variable}"),
        _file(config),
    ]
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values.update(source.values)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError([_line(details, sources) for details in error.errors(include_url=False)]) from None


def _file(config: Path | None) -> _Source:
    given, name = (config, "--config") if config else (os.environ.get(CONFIG_VARIABLE), CONFIG_VARIABLE)
    if not given:
        return _Source({}, "")
    path = Path(given)
    try:
        with path.open("rb") as file:
            content = yaml.safe_load(file.read(_MAX_FILE)) or {}
    except OSError as error:
        raise SettingsError([f"{name}: {path}: {error.strerror}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise SettingsError([f"{path}: {_yaml_words(error)}"]) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError([f"{path}: found {short(content)}, allowed a map of settings"])
    return _Source(content, str(path).replace("{", "{{").replace("}", "}}") + ": {key}")


def _yaml_words(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return f"not YAML: {short(str(error))}"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _line(details: ErrorDetails, sources: Sequence[_Source]) -> str:
    setting, *path = details["loc"]
    source = next((source for source in sources if setting in source.values), None)
    if source is None:
        return f"{flag_of(str(setting))}: not given, allowed {_allowed(details)}"
    where = source.name(str(setting)) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    if details["type"] == "extra_forbidden":
        return f"{where}: no such setting, allowed {', '.join(Settings.model_fields)}"
    return f"{where}: found {short(_found(details, source))}, allowed {_allowed(details)}"


def _found(details: ErrorDetails, source: _Source) -> object:
    # Where a validator turned the value into another one, what the user wrote says more.
    return source.values[str(details["loc"][0])] if len(details["loc"]) == 1 else details["input"]


_ALLOWED = {
    "enum": "{expected}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "dict_type": "a map of namespaces to lists of patterns",
    "mapping_type": "a map of namespaces to lists of patterns",
    "tuple_type": "a list of patterns",
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} or less",
}


def _allowed(details: ErrorDetails) -> str:
    known = _ALLOWED.get(details["type"])
    return known.format(**details.get("ctx", {})) if known else details["msg"]


def short(value: object, limit: int = 60) -> str:
    """A value in one line of printable characters, cut when it is long."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
