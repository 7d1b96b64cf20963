"""The metadata that every Kubernetes object has."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from translator.objects.fields import DnsLabel, ObjectName
from translator.objects.ref import DEFAULT_NAMESPACE


def _or_empty(value: object) -> object:
    return {} if value is None else value


def _or_default(value: object) -> object:
    return DEFAULT_NAMESPACE if value is None or value == "" else value


Strings = Annotated[dict[str, str], BeforeValidator(_or_empty)]


class ObjectMeta(BaseModel):
    """``creation_timestamp`` is RFC 3339 text as the apiserver wrote it: it sorts by age as it is."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", alias_generator=to_camel)

    name: ObjectName
    namespace: Annotated[DnsLabel, BeforeValidator(_or_default)] = DEFAULT_NAMESPACE
    labels: Strings = {}
    annotations: Strings = {}
    creation_timestamp: str | None = None
    generation: int | None = None
