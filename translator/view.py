"""How planners read objects, and what records it.

A planner reads through a ``View`` alone: one object by its reference, the objects that an index has under a key, a
value derived from other objects, a fact that earlier plans established of an object. Each of these is a key, recorded
also when it finds nothing. A changed object dirties the readers of its keys before and after the change, so that only
what an edit touches is computed again, however many services there are. Derived values are keys too, with cut-off:
while the value stays equal, nobody is disturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar, cast

from translator.objects import Object
from translator.objects.ref import Ref

Key = tuple[str, Hashable]
"""What was read: the name of an index or derivation and its argument, or ``OBJECT`` or ``FACT`` and a reference."""

OBJECT, FACT = "object", "fact"


T = TypeVar("T")
ObjectT = TypeVar("ObjectT", bound=Object)
ArgumentT = TypeVar("ArgumentT", bound=Hashable)
FactT = TypeVar("FactT", bound=Hashable)


class Absent(Enum):
    """Why there is no object: none of this name, or one that was never readable."""

    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class Index:
    """Finds objects by something they say; ``keys`` has, for each model it reads, a pure function of the object."""

    name: str
    keys: Mapping[type, Callable[[Any], Iterable[Hashable]]]


@dataclass(frozen=True)
class Derivation(Generic[ArgumentT, T]):
    """A value that is a pure function of what it reads through the view it is given."""

    name: str
    compute: Callable[[View, ArgumentT], T]


class Objects:
    """All objects by reference, and by every index. Each change returns the keys whose readers it concerns."""

    def __init__(self, indexes: Iterable[Index]) -> None:
        self._indexes = tuple(indexes)
        self._objects: dict[Ref, Object] = {}
        self._broken: set[Ref] = set()
        self._counts: Counter[str] = Counter()
        self._found: dict[Key, dict[Ref, Object]] = {}
        self._facts: dict[Ref, Hashable] = {}

    def __iter__(self) -> Iterator[Object]:
        return iter(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    def count(self, kind: str) -> int:
        """How many objects of a kind there are."""
        return self._counts[kind]

    def __contains__(self, ref: object) -> bool:
        return ref in self._objects

    def put(self, new: Object) -> set[Key]:
        """Hold a new or changed object; an equal one changes nothing."""
        ref = new.ref
        old = self._objects.get(ref)
        self._broken.discard(ref)
        if old == new:
            return set()
        keys = self._unlink(old) if old is not None else set()
        self._counts[ref.kind] += old is None
        self._objects[ref] = new
        for key in self._keys(new):
            self._found.setdefault(key, {})[ref] = new
            keys.add(key)
        keys.add((OBJECT, ref))
        return keys

    def remove(self, ref: Ref) -> set[Key]:
        """Drop an object; one that is not held changes nothing."""
        old = self._objects.pop(ref, None)
        if old is None and ref not in self._broken:
            return set()
        self._broken.discard(ref)
        self._counts[ref.kind] -= old is not None
        keys = self._unlink(old) if old is not None else set()
        keys.add((OBJECT, ref))
        return keys

    def broken(self, ref: Ref) -> set[Key]:
        """Note that an object's newest text is unreadable; the last good one goes on being read."""
        if ref in self._objects or ref in self._broken:
            return set()
        self._broken.add(ref)
        return {(OBJECT, ref)}

    def establish(self, ref: Ref, fact: Hashable | None) -> set[Key]:
        """Know something of an object that no object says; an equal fact changes nothing, None is to forget it."""
        if self._facts.get(ref) == fact:
            return set()
        if fact is None:
            del self._facts[ref]
        else:
            self._facts[ref] = fact
        return {(FACT, ref)}

    def fact(self, ref: Ref) -> Hashable | None:
        """What was established of an object."""
        return self._facts.get(ref)

    def get(self, ref: Ref) -> Object | Absent:
        """The object, or why there is none."""
        found = self._objects.get(ref)
        if found is not None:
            return found
        return Absent.BROKEN if ref in self._broken else Absent.MISSING

    def find(self, index: Index, value: Hashable) -> tuple[Object, ...]:
        """The objects under a value of an index, sorted by reference."""
        found = self._found.get((index.name, value))
        if not found:
            return ()
        return tuple(found[ref] for ref in sorted(found)) if len(found) > 1 else tuple(found.values())

    def _keys(self, found: Object) -> list[Key]:
        model = type(found)
        return [
            (index.name, value) for index in self._indexes if model in index.keys for value in index.keys[model](found)
        ]

    def _unlink(self, old: Object) -> set[Key]:
        keys = set(self._keys(old))
        for key in keys:
            under = self._found[key]
            under.pop(old.ref, None)
            if not under:
                del self._found[key]
        return keys


class View:
    """What a planner sees; ``reads`` are the keys it has asked for."""

    __slots__ = ("_derived", "_objects", "reads")

    def __init__(self, objects: Objects, derived: Derived | None = None) -> None:
        self._objects = objects
        self._derived = derived
        self.reads: set[Key] = set()

    def get(self, ref: Ref, model: type[ObjectT]) -> ObjectT | Absent:
        """The object of this reference; its kind is that of the model."""
        self.reads.add((OBJECT, ref))
        found = self._objects.get(ref)
        if not isinstance(found, Absent | model):
            raise TypeError(f"{ref} is read as {model.__name__}")
        return found

    def find(self, index: Index, value: Hashable) -> tuple[Any, ...]:
        """The objects that an index has under a value, sorted by reference."""
        self.reads.add((index.name, value))
        return self._objects.find(index, value)

    def fact(self, ref: Ref, model: type[FactT]) -> FactT | None:
        """What was established of an object, which is of this type."""
        self.reads.add((FACT, ref))
        found = self._objects.fact(ref)
        if not isinstance(found, model | None):
            raise TypeError(f"the fact of {ref} is read as {model.__name__}")
        return found

    def derive(self, derivation: Derivation[ArgumentT, T], argument: ArgumentT) -> T:
        """A derived value; computed once for all its readers."""
        key = (derivation.name, argument)
        self.reads.add(key)
        if self._derived is None:
            return derivation.compute(View(self._objects), argument)
        return self._derived.value(key, derivation)


class Readers:
    """Who has read which keys, both ways round."""

    def __init__(self) -> None:
        self._reads: dict[Hashable, frozenset[Key]] = {}
        self._readers: dict[Key, set[Hashable]] = {}

    def record(self, reader: Hashable, keys: Iterable[Key]) -> set[Key]:
        """Say all that a reader read last; returns the keys that nobody reads any more."""
        new = frozenset(keys)
        old = self._reads.get(reader, frozenset())
        if new:
            self._reads[reader] = new
        else:
            self._reads.pop(reader, None)
        for key in new - old:
            self._readers.setdefault(key, set()).add(reader)
        return {key for key in old - new if self._drop(key, reader)}

    def of(self, key: Key) -> set[Hashable]:
        """The readers of a key."""
        return self._readers.get(key, set())

    def _drop(self, key: Key, reader: Hashable) -> bool:
        readers = self._readers[key]
        readers.discard(reader)
        if readers:
            return False
        del self._readers[key]
        return True


class Derived:
    """The derived values that somebody reads, and the way from changed keys to the readers they concern."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._values: dict[Key, tuple[Derivation[Any, Any], Any]] = {}
        self.readers = Readers()

    def value(self, key: Key, derivation: Derivation[Any, T]) -> T:
        """The value under a key, computed if nobody has asked yet."""
        held = self._values.get(key)
        return cast(T, held[1]) if held is not None else self._compute(key, derivation)

    def record(self, reader: Hashable, keys: Iterable[Key]) -> None:
        """Say all that a reader read last; values that nobody reads any more are dropped."""
        self._drop(self.readers.record(reader, keys))

    def affected(self, changed: Iterable[Key]) -> set[Hashable]:
        """The readers that changed keys concern; derived values that come out equal stop the change."""
        affected: set[Hashable] = set()
        queue = list(changed)
        while queue:
            for reader in tuple(self.readers.of(queue.pop())):
                held = self._values.get(cast(Key, reader))
                if held is None:
                    affected.add(reader)
                elif self._compute(cast(Key, reader), held[0]) != held[1]:
                    queue.append(cast(Key, reader))
        return affected

    def _compute(self, key: Key, derivation: Derivation[Any, T]) -> T:
        view = View(self._objects, self)
        value = derivation.compute(view, key[1])
        self._values[key] = (derivation, value)
        self.record(key, view.reads)
        return value

    def _drop(self, unread: set[Key]) -> None:
        for key in unread:
            if self._values.pop(key, None) is not None:
                self.record(key, ())
