"""ServiceGateway: what the platform says of one service's gateway."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from translator.objects.base import Many, OurModel, Ours
from translator.objects.edge import Edge
from translator.objects.fields import Host, IpAddress, PortNumber
from translator.objects.policy import TargetRef
from translator.objects.quantity import Cpu, Memory, amount
from translator.objects.ref import XDSERVE
from translator.objects.refusal import Refusal, refuse_at, says

IPV4_ANY, IPV6_ANY = str(IPv4Address(0)), str(IPv6Address(0))
DEFAULT_PORT = 8080


def _each_host_once(hosts: tuple[str, ...]) -> tuple[str, ...]:
    again = [index for index, host in enumerate(hosts) if host in hosts[:index]]
    if again:
        refuse_at(*(Refusal((index,), hosts[index], "each host once") for index in again))
    return hosts


class Amounts(OurModel):
    """Quantities as Kubernetes has them, in its own spelling."""

    cpu: Cpu | None = None
    """Of processors: `2`, `0.5` or `500m`."""
    memory: Memory | None = None
    """Of memory: `256Mi`, `1Gi`."""


class Resources(OurModel):
    """What a container may use."""

    requests: Amounts = Amounts()
    """What is set aside for it."""
    limits: Amounts = Amounts()
    """What it may use at most; a limit of processors makes answers late."""

    @model_validator(mode="after")
    def _requests_fit_limits(self) -> Self:
        for name in Amounts.model_fields:
            requested, limit = getattr(self.requests, name), getattr(self.limits, name)
            if requested is not None and limit is not None and amount(requested) > amount(limit):
                refuse_at(Refusal(("requests", name), requested, f"at most the limit, {limit}"))
        return self


class ServiceGatewaySpec(OurModel):
    """``hosts`` are lower case and come beside those derived from the target."""

    NOT_YET_FIELDS: ClassVar[frozenset[str]] = frozenset({
        "default", "tls", "trustedHops", "accessLog", "tracing",
    })  # fmt: skip
    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {"mode": frozenset({"Shared", "Sidecar"})}

    target_ref: TargetRef
    """The service that this is for. Of two gateways on one target the older counts."""
    mode: Literal["Dedicated"] = "Dedicated"
    """`Dedicated`: the service has a gateway of its own."""
    hosts: Annotated[Many[Host], Field(max_length=64), AfterValidator(_each_host_once)] = ()
    """Host names beside those derived from the target; the operator's setting `allowed_hosts` must allow them."""
    address: IpAddress | None = None
    """The address to listen at; `::` takes IPv4 too. Left out, the operator's setting `gateway_address`; without it
    `::` where the cluster has IPv6, else `0.0.0.0`."""
    port: PortNumber = DEFAULT_PORT
    """The port to listen at."""
    edge: Edge = Edge()
    """What the gateway accepts from clients. A change replaces the listener, which [cuts
    streams](edge.md#what-a-change-cuts)."""
    replicas: Annotated[int, Field(ge=1, le=100), says("1..100")] | None = None
    """Pods of the gateway; left out, the operator's setting `gateway_replicas`."""
    resources: Resources | None = None
    """Of the Envoy in each pod, as a whole; left out, 50m and 96Mi are requested and 512Mi of memory are the limit."""


class ServiceGateway(Ours):
    """``xdserve.io/v1alpha1`` ServiceGateway."""

    GROUP: ClassVar[str] = XDSERVE
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "ServiceGateway"

    spec: ServiceGatewaySpec
