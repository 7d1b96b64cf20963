"""Kubernetes' own objects: a Service, the EndpointSlices that say where its pods are, and ConfigMaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, model_validator
from pydantic.alias_generators import to_camel

from translator.objects.base import Foreign, Many, Model
from translator.objects.fields import PortNumber, is_address
from translator.objects.ref import CORE, DISCOVERY
from translator.objects.refusal import refuse, says

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


class ServicePort(Model):
    """``target_port`` is a number or the name of a container port."""

    name: str = ""
    port: PortNumber
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: Annotated[int | str | None, says("a port's number or name")] = None


class ServiceSpec(Model):
    """``cluster_ip`` is the text ``None`` for a headless Service; ``selector`` is whether one finds its pods."""

    type: str = "ClusterIP"
    cluster_ip: Annotated[str | None, Field(alias="clusterIP")] = None
    external_name: str | None = None
    selector: Annotated[bool, BeforeValidator(bool)] = False
    ip_families: Many[str] = ()
    ip_family_policy: str | None = None
    ports: Many[ServicePort] = ()


class Service(Foreign):
    """``v1`` Service."""

    GROUP: ClassVar[str] = CORE
    VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Service"

    spec: ServiceSpec = ServiceSpec()


def _texts(value: object) -> object:
    """Without what the API refuses in a ConfigMap: it is nobody's CA."""
    if not isinstance(value, dict):
        return value
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


class ConfigMap(Foreign):
    """``v1`` ConfigMap: texts by key."""

    GROUP: ClassVar[str] = CORE
    VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ConfigMap"

    data: Annotated[dict[str, str], BeforeValidator(_texts)] = Field(default_factory=dict)


def _address(text: str) -> str:
    """Envoy refuses an endpoint whose address is a host name."""
    if not is_address(text):
        raise refuse("an IP address")
    return text


Address = Annotated[StrictStr, AfterValidator(_address)]

# Endpoints and their conditions are most of what is read at start, so they are plain slotted dataclasses. (A
# strict dataclass takes no map, so here the fields are strict one by one.)
_LIGHT = ConfigDict(extra="ignore", alias_generator=to_camel)


@dataclass(frozen=True, slots=True)
class Conditions:
    """None means unknown: ``ready`` then counts as true, ``serving`` as ``ready``, ``terminating`` as false."""

    __pydantic_config__ = _LIGHT

    ready: StrictBool | None = None
    serving: StrictBool | None = None
    terminating: StrictBool | None = None


_UNKNOWN = Conditions()


def _or_nothing(value: object) -> object:
    return () if value is None else value


def _or_unknown(value: object) -> object:
    return _UNKNOWN if value is None else value


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod; its addresses are interchangeable."""

    __pydantic_config__ = _LIGHT

    addresses: Annotated[Many[Address], BeforeValidator(_or_nothing)] = ()
    conditions: Annotated[Conditions, BeforeValidator(_or_unknown)] = _UNKNOWN
    zone: StrictStr | None = None

    @property
    def ready(self) -> bool | None:
        """Whether it takes new requests."""
        return self.conditions.ready

    @property
    def serving(self) -> bool | None:
        """Whether it answers, also while it terminates."""
        return self.conditions.serving

    @property
    def terminating(self) -> bool | None:
        """Whether its pod is on the way out."""
        return self.conditions.terminating


class EndpointPort(Model):
    """``port`` None means all ports, which nothing can be sent to."""

    name: str = ""
    port: PortNumber | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


_ADDRESS_TYPES = ("IPv4", "IPv6")


class EndpointSlice(Foreign):
    """``discovery.k8s.io/v1`` EndpointSlice."""

    GROUP: ClassVar[str] = DISCOVERY
    VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "EndpointSlice"

    address_type: Literal["IPv4", "IPv6"]
    endpoints: Many[Endpoint] = ()
    ports: Many[EndpointPort] = ()

    @model_validator(mode="before")
    @classmethod
    def _addresses_of_a_wrong_type_are_not_judged(cls, value: object) -> object:
        """One cause is one error: names in a slice of type FQDN are what its type says."""
        if not isinstance(value, dict) or value.get("addressType") in _ADDRESS_TYPES:
            return value
        return {key: item for key, item in value.items() if key != "endpoints"}

    @property
    def service(self) -> str | None:
        """The name of the Service, in the same namespace, that these are endpoints of."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL)
