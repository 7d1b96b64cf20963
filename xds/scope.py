"""What one gateway is to have: its encoded resources by type and name, and what its Envoys have said of them.

A refused version does no harm: the newest version that an Envoy of the gateway acknowledged is served instead, to all
that have not taken the refused one, until what is wanted changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from xds.memory import Cause, Memory, Refusal, Rejection, Retired, remember
from xds.types import ResourceType
from xds.wire.resource import Resource

Changes = Mapping[ResourceType, frozenset[str]]
Key = tuple[ResourceType, str]

REFUSALS_KEPT = 8
"""Refused versions remembered of a name."""

_NOBODY: frozenset[str] = frozenset()
_ANY = ""
"""Stands for the version of what Envoys have in several: some took what others refused, or keep an earlier one."""


class Scope:
    """The resources of one gateway; every session of the gateway reads it, none keeps a copy.

    - *wanted* is what was put last;
    - *good* are the versions that an Envoy acknowledged, the newest two of each name;
    - *served* is what Envoys are to be sent: what is wanted, unless that was refused; then the newest good version;
      then one that some Envoys have and others refused; and nothing where there is none. A route configuration that
      needs a cluster of which nothing is served is treated as if it was refused. Clusters and assignments that only a
      good version of routes still needs are *retired*: not wanted any more, and served while such routes are.

    An update costs what it names, not what the scope holds.
    """

    __slots__ = (
        "_dirty", "_good", "_instead", "_refused", "_restored", "_retired", "_suspects", "_taken", "_wanted",
        "_withheld", "name",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self._wanted: dict[ResourceType, dict[str, Resource]] = {type_: {} for type_ in ResourceType}
        self._good: dict[ResourceType, dict[str, tuple[Resource, ...]]] = {type_: {} for type_ in ResourceType}
        # All below is empty while Envoys refuse nothing.
        self._refused: dict[Key, dict[str, Refusal]] = {}
        self._instead: dict[Key, Resource | None] = {}
        self._withheld: set[str] = set()
        self._taken: dict[Key, Resource] = {}
        self._suspects: dict[ResourceType, set[str]] = {}
        self._retired = Retired()
        self._dirty: set[Key] = set()
        self._restored = False

    # -- What is wanted ----------------------------------------------------------------------------------------

    def update(self, put: Iterable[Resource], remove: Iterable[Key] = ()) -> Changes:
        """Take resources out, put resources in, and say which names are now served in another version.

        A name that is both removed and put is put. Equal content keeps its old bytes, so that all versions
        of a resource share them, and takes the newer origin: where an object says it may have moved.
        """
        taken = {(resource.type, resource.name): resource for resource in put}
        before = {key: self._before(key, resource.version) for key, resource in taken.items()}
        before = self._retired_versions() | before
        # Routes after clusters: what they let go of may have been put in the same breath.
        for key in sorted(taken, key=_is_route):
            self._put(key, taken[key])
        for key in remove:
            if key not in taken and key[1] in self._wanted[key[0]]:
                before.setdefault(key, self._before(key))
                self._remove(key)
        if self._restored:
            self._prune()
        return self._settle(before)

    def retains(self, cluster: str) -> bool:
        """Whether the cluster is not wanted any more, and good routes may need it again."""
        return self._retired.get((ResourceType.CLUSTER, cluster)) is not None

    def refresh(self, assignment: Resource) -> Changes:
        """The endpoints of a retained cluster are others now; says what is served otherwise."""
        key = (ResourceType.ENDPOINT, assignment.name)
        if self._retired.get(key) is None:
            return {}
        before = {key: self._version(key)}
        self._retired.keep(key, assignment)
        return self._settle(before)

    def _retired_versions(self) -> dict[Key, str | None]:
        """What is served of retired names, any of which may be let go of."""
        return {key: self._version(key) for key in self._retired}

    def _before(self, key: Key, version: str | None = None) -> str | None:
        """What is served before another version is wanted. Where that was not what was wanted, some may have either."""
        wanted = self._wanted[key[0]].get(key[1])
        other = wanted is not None and wanted.version != version
        return _ANY if other and key in self._instead else self._version(key)

    def _put(self, key: Key, resource: Resource) -> None:
        of_type = self._wanted[resource.type]
        old = of_type.get(resource.name)
        if old is not None and old.version == resource.version:
            if old.origin is not resource.origin:
                of_type[resource.name] = replace(old, origin=resource.origin)
            return
        of_type[resource.name] = resource
        self._retired.take_back(key)
        if resource.version not in self._refused.get(key, (resource.version,)) and self.is_good(resource):
            self._forgive(key)
        if self._suspects:
            self._clear(key)
        if resource.type is ResourceType.ROUTE:
            self._pin(resource.name)

    def _remove(self, key: Key) -> None:
        type_, name = key
        gone = self._wanted[type_].pop(name)
        if self._retired.pins(key):
            good = self._good[type_].get(name, ())
            self._retired.keep(key, next((found for found in good if self._fit(key, found)), gone))
        else:
            self._forget(key)
        if type_ is ResourceType.ROUTE:
            self._pin(name)

    def _forget(self, key: Key) -> None:
        """Nobody needs the name any more."""
        if self._good[key[0]].pop(key[1], None) or key in self._refused:
            self._dirty.add(key)
        self._refused.pop(key, None)
        self._taken.pop(key, None)
        self._clear(key)

    def _pin(self, route: str) -> None:
        """Note the clusters that good versions of the routes need beside the wanted one; let go of others."""
        wanted = self._wanted[ResourceType.ROUTE].get(route)
        good = self._good[ResourceType.ROUTE].get(route, ()) if wanted is not None else ()
        uses = _NOBODY.union(*(kept.uses for kept in good if wanted is None or kept.version != wanted.version))
        for key in self._retired.pin(route, uses):
            self._instead.pop(key, None)
            self._forget(key)

    # -- What is served ----------------------------------------------------------------------------------------

    def get(self, type_: ResourceType, name: str) -> Resource | None:
        """What Envoys are to be sent under that type and name, if anything."""
        if self._instead and (type_, name) in self._instead:
            return self._instead[type_, name]
        return self._wanted[type_].get(name)

    def wanted(self, type_: ResourceType, name: str) -> Resource | None:
        """What was put last under that type and name."""
        return self._wanted[type_].get(name)

    def names(self, type_: ResourceType) -> Collection[str]:
        """The names of which something is served; may follow the scope, so not to be kept."""
        wanted = self._wanted[type_]
        if not self._instead:
            return wanted.keys()
        instead = {name: found for (kind, name), found in self._instead.items() if kind is type_}
        missing = {name for name, found in instead.items() if found is None}
        return (wanted.keys() | instead.keys()) - missing

    def resources(self) -> Iterable[Resource]:
        """All that is served, by type in send order."""
        served = (self.get(type_, name) for type_ in ResourceType for name in self.names(type_))
        return (resource for resource in served if resource is not None)

    def keys(self) -> list[Key]:
        """Type and name of all that is wanted."""
        return [(type_, name) for type_, names in self._wanted.items() for name in names]

    def __len__(self) -> int:
        return sum(map(len, self._wanted.values()))

    def _version(self, key: Key) -> str | None:
        served = self.get(*key)
        return served.version if served else None

    def _settle(self, before: dict[Key, str | None]) -> Changes:
        """Decide anew what is served under the names in `before`; the names whose version is another now."""
        if self._refused or self._retired or self._instead:
            self._reconsider(before)
        changes: dict[ResourceType, set[str]] = {}
        for key, version in before.items():
            if self._version(key) != version:
                changes.setdefault(key[0], set()).add(key[1])
        return {type_: frozenset(names) for type_, names in changes.items()}

    def _reconsider(self, before: dict[Key, str | None]) -> None:
        """Clusters first, then the routes that need them, then what only those routes need."""
        routes = [key for key in before if key[0] is ResourceType.ROUTE]
        withheld = set(self._withheld)
        for key in [key for key in before if key[0] is not ResourceType.ROUTE]:
            self._decide(key, before)
        if withheld != self._withheld or any(self._retired.get(key) for key in before):
            routes += [(ResourceType.ROUTE, name) for name in self._wanted[ResourceType.ROUTE]]
        for key in routes:
            self._decide(key, before)
        for key in self._retired:
            self._decide(key, before)

    def _decide(self, key: Key, before: dict[Key, str | None]) -> None:
        before.setdefault(key, self._version(key))
        type_, name = key
        wanted = self._wanted[type_].get(name)
        chosen = self._retired_one(key) if wanted is None else next(self._fit_versions(key, wanted), None)
        if chosen is wanted:
            self._instead.pop(key, None)
        else:
            self._instead[key] = chosen
        if type_ is ResourceType.CLUSTER:
            (self._withheld.add if wanted and not chosen else self._withheld.discard)(name)

    def _fit_versions(self, key: Key, wanted: Resource) -> Iterator[Resource]:
        """What may be served, the best first."""
        if self._fit(key, wanted):
            yield wanted
        good = self._good[key[0]].get(key[1], ())
        yield from (found for found in good if self._fit(key, found) and self._complete(found))
        # What one Envoy has and another refused is better than nothing: the fault may be the other's own.
        disputed = (wanted if self.is_good(wanted) else None, self._taken.get(key), *good)
        yield from (found for found in disputed if found and self._complete(found))

    def _complete(self, resource: Resource) -> bool:
        """Whether all clusters that it uses are served."""
        return resource.uses.isdisjoint(self._withheld) and all(map(self._has_cluster, resource.uses))

    def _fit(self, key: Key, resource: Resource) -> bool:
        refused = resource.version in self._refused.get(key, ())
        return not refused and resource.uses.isdisjoint(self._withheld)

    def _has_cluster(self, name: str) -> bool:
        wanted = name in self._wanted[ResourceType.CLUSTER]
        return wanted or self._kept((ResourceType.CLUSTER, name)) is not None

    def _retired_one(self, key: Key) -> Resource | None:
        served = (self.get(ResourceType.ROUTE, route) for route in self._retired.users(key[1]))
        return self._kept(key) if any(route and key[1] in route.uses for route in served) else None

    def _kept(self, key: Key) -> Resource | None:
        """What there is to serve of a retired name."""
        kept = self._retired.get(key)
        versions = (kept, *self._good[key[0]].get(key[1], ())) if kept else ()
        return next((found for found in versions if self._fit(key, found)), None)

    # -- What Envoys say ---------------------------------------------------------------------------------------

    def acknowledge(self, type_: ResourceType, versions: Mapping[str, str], node: str = "") -> Changes:
        """An Envoy, `node`, has these versions by name; those wanted are good. Says what is served otherwise now.

        A version that another Envoy refused stays refused, and is served where nothing else is good. One that is in
        quarantine comes out of it, and so does one that this Envoy was thought to refuse: in the state of the world one
        refusal may stand for several responses.
        """
        before: dict[Key, str | None] = {}
        wanted, good = self._wanted[type_], self._good[type_]
        for name, version in versions.items():
            found = wanted.get(name)
            if found is None or found.version != version:
                continue
            known = good.get(name, ())
            if not (known and known[0].version == version) or self._refused or self._suspects:
                self._found_good((type_, name), found, before, node)
        return self._settle(before) if before else {}

    def _found_good(self, key: Key, found: Resource, before: dict[Key, str | None], node: str) -> None:
        refusal = self._refused.get(key, {}).get(found.version)
        if refusal is not None and refusal.cause is Cause.REFUSED and refusal.node != node:
            if key not in self._taken or self._taken[key].version != found.version:
                before[key] = self._version(key)
                self._taken[key] = found
                self._dirty.add(key)
            return
        self._clear(key)
        known = self._good[key[0]].get(key[1], ())
        if key in self._refused:
            before[key] = self._version(key)
            # Another Envoy would refuse them again: there may be a better one to fall back on.
            known = tuple(kept for kept in known if not self.is_refused(*key, kept.version))
            self._forgive(key)
        if known and known[0].version == found.version:
            return
        self._good[key[0]][key[1]] = remember(found, known)
        self._dirty.add(key)
        if key[0] is ResourceType.ROUTE and known:
            before |= self._retired_versions() | before
            self._pin(key[1])

    def refuse(self, type_: ResourceType, name: str, refusal: Refusal) -> Changes:
        """An Envoy will not have a version; says what is served otherwise now.

        Nothing happens if the version is neither wanted nor good nor retired: what it says is out of date. What the
        first Envoy says of a version stays, though others say the same.
        """
        key = (type_, name)
        known = (self._wanted[type_].get(name), self._retired.get(key), *self._good[type_].get(name, ()))
        current = any(found is not None and found.version == refusal.version for found in known)
        earlier = self._refused.get(key, {}).get(refusal.version)
        if not current or (earlier is not None and earlier.cause is Cause.REFUSED):
            return {}
        before = {key: self._version(key)}
        refused = self._refused.setdefault(key, {})
        refused.pop(refusal.version, None)
        refused[refusal.version] = refusal
        while len(refused) > REFUSALS_KEPT:
            del refused[next(iter(refused))]
        self._clear(key)
        self._dirty.add(key)
        return self._settle(before)

    def _forgive(self, key: Key) -> None:
        """A good version is wanted again: what was refused before it may be tried again."""
        del self._refused[key]
        self._taken.pop(key, None)
        self._dirty.add(key)

    def acquit(self, type_: ResourceType, name: str, version: str) -> Changes:
        """A version has been in quarantine for long enough to be tried again; says what is served otherwise now."""
        key = (type_, name)
        refusal = self._refused.get(key, {}).get(version)
        if refusal is None or refusal.cause is not Cause.QUARANTINED:
            return {}
        before = {key: self._version(key)}
        del self._refused[key][version]
        if not self._refused[key]:
            del self._refused[key]
        return self._settle(before)

    def pardon(self) -> Changes:
        """Forget all refusals, for what was at fault may be mended; says what is served otherwise now."""
        before = {key: self._version(key) for key in self._refused}
        for key in before:
            self._forgive(key)
        return self._settle(before)

    def suspect(self, type_: ResourceType, names: Iterable[str]) -> None:
        """One of these was refused, and nobody knows which: each is to travel alone until it is known.

        Names that are not wanted any more are passed over: nothing would ever clear them.
        """
        if found := self._wanted[type_].keys() & names:
            self._suspects.setdefault(type_, set()).update(found)

    def suspects(self, type_: ResourceType) -> Collection[str]:
        """The names that are to travel alone."""
        return self._suspects.get(type_, _NOBODY)

    def _clear(self, key: Key) -> None:
        if of_type := self._suspects.get(key[0]):
            of_type.discard(key[1])
            if not of_type:
                del self._suspects[key[0]]

    # -- Questions ---------------------------------------------------------------------------------------------

    def is_good(self, resource: Resource) -> bool:
        """Whether an Envoy of the gateway acknowledged this version."""
        return self.has_been_good(resource.type, resource.name, resource.version)

    def has_been_good(self, type_: ResourceType, name: str, version: str) -> bool:
        """Whether an Envoy of the gateway acknowledged this version of the name."""
        taken = self._taken.get((type_, name)) if self._taken else None
        known = self._good[type_].get(name, ())
        return any(found.version == version for found in known) or (taken is not None and taken.version == version)

    def known(self, type_: ResourceType, name: str, version: str) -> Resource | None:
        """That version of the name, if it is wanted or good, or kept for good routes."""
        kept = self._retired.get((type_, name)) if self._retired else None
        candidates = (self._wanted[type_].get(name), *self._good[type_].get(name, ()), kept)
        return next((found for found in candidates if found and found.version == version), None)

    def withholds(self, type_: ResourceType) -> bool:
        """Whether something of the type is wanted and cannot be served in any version."""
        return any(
            found is None and key[0] is type_ and key[1] in self._wanted[type_] for key, found in self._instead.items()
        )

    def held_up(self) -> dict[str, list[str]]:
        """Route configurations that cannot be served as they are wanted, and the clusters that they lack for it."""
        if not self._withheld:
            return {}
        wanted = self._wanted[ResourceType.ROUTE].items()
        return {name: sorted(lacks) for name, found in wanted if (lacks := found.uses & self._withheld)}

    def doubtful(self, type_: ResourceType, name: str, version: str) -> bool:
        """Whether the version is served and unproven, and another is known to be good."""
        served = self.get(type_, name)
        current = served is not None and served.version == version
        return current and bool(self._good[type_].get(name)) and not self.has_been_good(type_, name, version)

    def is_refused(self, type_: ResourceType, name: str, version: str) -> bool:
        """Whether the version is not to be sent."""
        return version in self._refused.get((type_, name), ())

    def refused_by(self, node: str) -> Iterator[tuple[ResourceType, str, str]]:
        """Type, name and version of what that Envoy was the first to refuse."""
        for (type_, name), refused in self._refused.items():
            yield from ((type_, name, found.version) for found in refused.values() if found.node == node)

    def rejections(self) -> tuple[Rejection, ...]:
        """What of all that is wanted now was refused, with its origin and what is served instead."""
        if not self._refused:
            return ()
        return tuple(found for key in self._refused if (found := self._rejection(key)))

    def _rejection(self, key: Key) -> Rejection | None:
        wanted = self._wanted[key[0]].get(key[1])
        refusal = self._refused[key].get(wanted.version) if wanted else None
        if wanted is None or refusal is None:
            return None
        return Rejection(type=key[0], name=key[1], refusal=refusal, origin=wanted.origin, served=self._version(key))

    # -- Memory ------------------------------------------------------------------------------------------------

    def drain(self) -> list[Key]:
        """The names of which something else is remembered than when this was asked last."""
        drained = sorted(self._dirty)
        self._dirty.clear()
        return drained

    def remembered(self, type_: ResourceType, name: str) -> Memory:
        """What outlives the server of a name: its good versions and the refused ones."""
        known = self._refused.get((type_, name), {}).values()
        refused = tuple(found for found in known if found.cause is Cause.REFUSED)  # a quarantine ends with the server
        good = self._good[type_].get(name, ())
        if (taken := self._taken.get((type_, name))) is not None and taken not in good:
            good = (taken, *good)  # the order in which they are served where each was refused by someone
        return Memory(type=type_, name=name, good=good, refused=refused)

    def restore(self, memories: Iterable[Memory]) -> None:
        """Remember again what an earlier server knew. To be called before anything is put.

        What the first update neither puts nor needs is forgotten: it went while no server ran.
        """
        self._restored = True
        for memory in memories:
            if memory.good:
                self._good[memory.type][memory.name] = memory.good
            if memory.refused:
                self._refused[memory.type, memory.name] = {found.version: found for found in memory.refused}
        for route, good in self._good[ResourceType.ROUTE].items():
            self._retired.pin(route, _NOBODY.union(*(kept.uses for kept in good)))
        for type_ in (ResourceType.CLUSTER, ResourceType.ENDPOINT):
            for name, good in self._good[type_].items():
                if self._retired.pins((type_, name)):
                    self._retired.keep((type_, name), good[0])

    def _prune(self) -> None:
        """Forget the names of an earlier server that are not wanted any more."""
        self._restored = False
        known = [(type_, name) for type_, good in self._good.items() for name in good]
        for key in {*known, *self._refused}:
            if key[1] not in self._wanted[key[0]] and self._retired.get(key) is None:
                self._forget(key)
        for route in self._retired.routes() - self._wanted[ResourceType.ROUTE].keys():
            self._pin(route)


def _is_route(key: Key) -> bool:
    return key[0] is ResourceType.ROUTE
