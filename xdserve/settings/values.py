"""What settings are made of: words, the forms of text, and how each is read from one line."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from bootstrap.address import ALLOWED as ADDRESS_ALLOWED
from bootstrap.address import Address

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAMESPACE = re.compile(rf"\*|{LABEL}")
DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(\.{LABEL})*")
# Kubernetes' label selectors: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels
_KEY = rf"(?:{LABEL}(?:\.{LABEL})*/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
_SET = rf"\(\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*\)"
_REQUIREMENT = rf"(?:!\s*{_KEY}|{_KEY}\s+(?:not)?in\s*{_SET}|{_KEY}\s*(?:==?|!=)\s*{_VALUE}|{_KEY})"
SELECTOR = re.compile(rf"(?=.{{0,1000}}\Z)(?:{_REQUIREMENT}(?:\s*,\s*{_REQUIREMENT})*)?")
IMAGE = re.compile(
    r"(?=.{1,512}\Z)[a-zA-Z0-9](?:[a-zA-Z0-9._/-]|:[0-9]+/)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
PATTERN = re.compile(rf"(?=.{{1,253}}\Z)(\*|(\*\.)?{LABEL}(\.{LABEL})*)")


class Word(StrEnum):
    """Sources that are no directory; a directory of that name is written ``./kubernetes``."""

    KUBERNETES = "kubernetes"


class Provision(StrEnum):
    """Which targets get a gateway's pods: all that do not say no, those that say yes, none."""

    OPT_OUT = "opt-out"
    OPT_IN = "opt-in"
    OFF = "off"


class UrlScheme(StrEnum):
    """How services are reached from outside."""

    HTTP = "http"
    HTTPS = "https"


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


def wrong(allowed: str) -> PydanticCustomError:
    """An error for a validator to raise about the value that it was given."""
    return PydanticCustomError("allowed", "{allowed}", {"allowed": allowed})


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    try:
        return Address.parse(value if isinstance(value, str) else "")
    except ValueError:
        raise wrong(ADDRESS_ALLOWED.replace("1..", "0..")) from None


def allowed_hosts(value: object) -> object:
    """Read the one-line form of flags and variables: ``NAMESPACE=PATTERN`` words, by blanks or commas."""
    if isinstance(value, str):
        value = re.split(r"[\s,]+", value.strip()) if value.strip() else []
    if not isinstance(value, list | tuple):
        return value
    hosts: dict[str, list[str]] = {}
    for word in value:
        namespace, equals, pattern = str(word).partition("=")
        if not equals:
            raise wrong("NAMESPACE=PATTERN words, as in models=*.example.org")
        hosts.setdefault(namespace, []).append(pattern)
    return hosts


def _source(value: object) -> object:
    if isinstance(value, str):
        # Only the very word: as a path, `./kubernetes` is equal to it.
        return Word.KUBERNETES if value == Word.KUBERNETES else Path(value)
    if value is None or isinstance(value, Path):
        return value
    raise wrong("a path or the word kubernetes")


def names(value: object) -> object:
    """Read the one-line form of flags and variables: names, by blanks or commas."""
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    return re.split(r"[\s,]+", value.strip()) if isinstance(value, str) and value.strip() else value or ()


SourceSetting = Annotated[Word | Path | None, Field(union_mode="left_to_right"), BeforeValidator(_source)]
AddressSetting = Annotated[Address, NoDecode, BeforeValidator(_address), PlainSerializer(str)]


def short(value: object, limit: int = 60) -> str:
    """A value in one line of printable characters, cut when it is long."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
