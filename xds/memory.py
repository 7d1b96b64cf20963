"""What Envoys said of resources, as values; and what is kept of resources that are not wanted any more."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from xds.types import ResourceType
from xds.wire.resource import Resource

GOOD_KEPT = 2
"""Good versions remembered of a name: one Envoy may refuse what another acknowledged."""

_RETIRED_TYPES = (ResourceType.CLUSTER, ResourceType.ENDPOINT)


class Cause(StrEnum):
    """Why a version is not served."""

    REFUSED = "refused"
    """An Envoy said that it will not have it."""
    QUARANTINED = "quarantined"
    """An Envoy was lost twice while it had it and had not acknowledged it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A version that an Envoy would not have: which Envoy (its node id), and its words."""

    version: str
    code: int
    message: str
    node: str
    cause: Cause = Cause.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A refusal of what is wanted now: where the resource comes from, and the version served instead, if any."""

    type: ResourceType
    name: str
    refusal: Refusal
    origin: object
    served: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is to outlive the server of one name: its good versions, the newest first, and the refused ones."""

    type: ResourceType
    name: str
    good: tuple[Resource, ...]
    refused: tuple[Refusal, ...]


def remember(found: Resource, known: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """The good versions of a name when one more was found good."""
    return (found, *(other for other in known if other.version != found.version))[:GOOD_KEPT]


class Retired:
    """Clusters and assignments that are not wanted, and that good versions of route configurations still use."""

    __slots__ = ("_held", "_pins", "_users")

    def __init__(self) -> None:
        self._held: dict[tuple[ResourceType, str], Resource] = {}
        self._pins: dict[str, frozenset[str]] = {}
        self._users: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def __iter__(self) -> Iterator[tuple[ResourceType, str]]:
        return iter(tuple(self._held))

    def get(self, key: tuple[ResourceType, str]) -> Resource | None:
        """What is kept under the name."""
        return self._held.get(key)

    def pins(self, key: tuple[ResourceType, str]) -> bool:
        """Whether the name is to be kept."""
        return key[0] in _RETIRED_TYPES and key[1] in self._users

    def users(self, cluster: str) -> Collection[str]:
        """The route configurations of which a good version uses the cluster."""
        return self._users.get(cluster, ())

    def routes(self) -> set[str]:
        """The route configurations of which a good version needs something that the wanted one does not."""
        return set(self._pins)

    def keep(self, key: tuple[ResourceType, str], resource: Resource) -> None:
        """The name is not wanted any more."""
        self._held[key] = resource

    def take_back(self, key: tuple[ResourceType, str]) -> None:
        """The name is wanted again."""
        self._held.pop(key, None)

    def pin(self, route: str, uses: frozenset[str]) -> list[tuple[ResourceType, str]]:
        """Good versions of the route configuration use these clusters now; the names let go of thereby."""
        before = self._pins.pop(route, frozenset())
        if uses:
            self._pins[route] = uses
        for cluster in uses - before:
            self._users.setdefault(cluster, set()).add(route)
        return [key for cluster in before - uses for key in self._unpin(cluster, route)]

    def _unpin(self, cluster: str, route: str) -> list[tuple[ResourceType, str]]:
        users = self._users[cluster]
        users.discard(route)
        if users:
            return []
        del self._users[cluster]
        return [(type_, cluster) for type_ in _RETIRED_TYPES if self._held.pop((type_, cluster), None)]
