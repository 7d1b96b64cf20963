"""What one gateway is to have: its encoded resources by type and name."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping
from dataclasses import replace

from xds.types import ResourceType
from xds.wire.resource import Resource

Changes = Mapping[ResourceType, frozenset[str]]


class Scope:
    """The resources of one gateway; every session of the gateway reads it, none keeps a copy.

    An update costs what it names, not what the scope holds.
    """

    __slots__ = ("_resources", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._resources: dict[ResourceType, dict[str, Resource]] = {type_: {} for type_ in ResourceType}

    def update(self, put: Iterable[Resource], remove: Iterable[tuple[ResourceType, str]] = ()) -> Changes:
        """Take resources out, put resources in, and say which names now have another version.

        A name that is both removed and put is put. Equal content keeps its old bytes, so that all versions
        of a resource share them, and takes the newer origin: where an object says it may have moved.
        """
        before: dict[tuple[ResourceType, str], str | None] = {}
        put = tuple(put)
        kept = {(resource.type, resource.name) for resource in put}
        for type_, name in remove:
            if (type_, name) not in kept and (old := self._resources[type_].pop(name, None)):
                before[type_, name] = old.version
        for resource in put:
            before.setdefault((resource.type, resource.name), self._put(resource))
        return self._changes(before)

    def _put(self, resource: Resource) -> str | None:
        of_type = self._resources[resource.type]
        old = of_type.get(resource.name)
        if old is None or old.version != resource.version:
            of_type[resource.name] = resource
        elif old.origin is not resource.origin:
            of_type[resource.name] = replace(old, origin=resource.origin)
        return old.version if old else None

    def _changes(self, before: Mapping[tuple[ResourceType, str], str | None]) -> Changes:
        changes: dict[ResourceType, set[str]] = {}
        for (type_, name), version in before.items():
            now = self._resources[type_].get(name)
            if (now.version if now else None) != version:
                changes.setdefault(type_, set()).add(name)
        return {type_: frozenset(names) for type_, names in changes.items()}

    def get(self, type_: ResourceType, name: str) -> Resource | None:
        """The resource of that type and name, if the gateway is to have one."""
        return self._resources[type_].get(name)

    def names(self, type_: ResourceType) -> KeysView[str]:
        """The names of a type, as a view that follows the scope."""
        return self._resources[type_].keys()

    def resources(self) -> Iterable[Resource]:
        """All resources, by type in send order."""
        return (resource for of_type in self._resources.values() for resource in of_type.values())

    def __len__(self) -> int:
        return sum(map(len, self._resources.values()))
