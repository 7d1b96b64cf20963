"""ServiceGateway: what the platform says of one service's gateway."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from translator.objects.base import Many, OurModel, Ours
from translator.objects.fields import Host, IpAddress, PortNumber
from translator.objects.policy import TargetRef
from translator.objects.ref import XDSERVE
from translator.objects.refusal import Refusal, refuse_at

DEFAULT_ADDRESS = str(IPv4Address(0))
DEFAULT_PORT = 8080


def _each_host_once(hosts: tuple[str, ...]) -> tuple[str, ...]:
    again = [index for index, host in enumerate(hosts) if host in hosts[:index]]
    if again:
        refuse_at(*(Refusal((index,), hosts[index], "each host once") for index in again))
    return hosts


class ServiceGatewaySpec(OurModel):
    """``hosts`` are lower case and come beside those derived from the target."""

    NOT_YET_FIELDS: ClassVar[frozenset[str]] = frozenset({
        "default", "replicas", "tls", "trustedHops", "resources", "accessLog", "tracing",
    })  # fmt: skip
    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {"mode": frozenset({"Shared", "Sidecar"})}

    target_ref: TargetRef
    """The service that this is for. Of two gateways on one target the older counts."""
    mode: Literal["Dedicated"] = "Dedicated"
    """`Dedicated`: the service has a gateway of its own."""
    hosts: Annotated[Many[Host], Field(max_length=64), AfterValidator(_each_host_once)] = ()
    """Host names beside those derived from the target; the operator's setting `allowed_hosts` must allow them."""
    address: IpAddress = DEFAULT_ADDRESS
    """The address to listen at."""
    port: PortNumber = DEFAULT_PORT
    """The port to listen at."""


class ServiceGateway(Ours):
    """``xdserve.io/v1alpha1`` ServiceGateway."""

    GROUP: ClassVar[str] = XDSERVE
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "ServiceGateway"

    spec: ServiceGatewaySpec
