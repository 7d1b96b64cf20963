"""Gateway API's ReferenceGrant: which objects of other namespaces may name those of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from translator.objects.base import Foreign, Many, Model
from translator.objects.fields import DnsLabel
from translator.objects.ref import CORE, GATEWAY_API, Ref


class GrantFrom(Model):
    """Who may refer: the objects of one kind and namespace."""

    group: str
    kind: str
    namespace: DnsLabel


class GrantTo(Model):
    """What may be referred to, in the grant's own namespace; without ``name`` every object of the kind."""

    group: str = CORE
    kind: str
    name: str | None = None


class ReferenceGrantSpec(Model):
    """Any of ``from_`` may refer to any of ``to``."""

    from_: Annotated[Many[GrantFrom], Field(alias="from")] = ()
    to: Many[GrantTo] = ()


class ReferenceGrant(Foreign):
    """``gateway.networking.k8s.io/v1beta1`` ReferenceGrant, and ``v1``, which says the same.

    v1beta1 is what every release of Gateway API since 0.6 serves.
    """

    GROUP: ClassVar[str] = GATEWAY_API
    VERSION: ClassVar[str] = "v1beta1"
    KIND: ClassVar[str] = "ReferenceGrant"
    OTHER_VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    spec: ReferenceGrantSpec

    def permits(self, source: Ref, target: Ref) -> bool:
        """Whether it lets one object refer to another (GEP-709): both sides must be in the grant."""
        if target.namespace != self.ref.namespace:
            return False
        return (source.group, source.kind, source.namespace) in (
            (each.group, each.kind, each.namespace) for each in self.spec.from_
        ) and any(
            (each.group, each.kind) == (target.group, target.kind) and each.name in {None, "", target.name}
            for each in self.spec.to
        )
