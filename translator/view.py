"""How planners read objects, and what records it.

A planner reads through a ``View`` alone: one object by its reference, the objects that an index has under a key, a
value derived from other objects, a fact that earlier plans established of an object. Each of these is a key, recorded
also when it finds nothing. A changed object dirties the readers of its keys before and after the change, so that only
what an edit touches is computed again, however many services there are. Derived values are keys too, with cut-off:
while the value stays equal, nobody is disturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
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


class Named:
    """Objects that no source lists: which of them somebody reads now, and which of those have yet to be asked for.

    Who asks for them drains what has changed, and answers each with its object or with why there is none.

    Args:
        kinds: of the objects that are asked for by name; without any, nothing is awaited.
        always: objects that are asked for though nobody reads them yet.
    """

    def __init__(self, kinds: Iterable[str] = (), always: Iterable[Ref] = ()) -> None:
        self.kinds = frozenset(kinds)
        self.awaited: set[Key] = set()
        """The keys of objects that are read and have no answer."""
        self._always = frozenset(always)
        self._read: set[Ref] = set()
        self._answered: set[Ref] = set()
        self._changed = dict.fromkeys(self._always)
        self._tell: Callable[[], None] = lambda: None

    def __contains__(self, ref: object) -> bool:
        return ref in self._read or ref in self._always

    def subscribe(self, tell: Callable[[], None]) -> None:
        """Call this when something is to be drained."""
        self._tell = tell

    def drain(self) -> list[Ref]:
        """The objects that somebody began to read, or ceased to, since the last call."""
        changed, self._changed = self._changed, {}
        return list(changed)

    @property
    def unknown(self) -> bool:
        """Whether one of those that are always asked for has no answer."""
        return not self._always <= self._answered

    def answer(self, ref: Ref) -> bool:
        """Something is known of an object now; whether that was awaited."""
        if ref.kind not in self.kinds:
            return False
        if ref in self:
            self._answered.add(ref)
        else:
            self._answered.discard(ref)
        was_awaited = (OBJECT, ref) in self.awaited
        self.awaited.discard((OBJECT, ref))
        return was_awaited

    def began(self, ref: Ref) -> None:
        """Somebody reads an object that nobody has read."""
        self._read.add(ref)
        if ref not in self._answered:
            self.awaited.add((OBJECT, ref))
        self._change(ref)

    def ceased(self, ref: Ref) -> None:
        """Nobody reads an object any more."""
        self._read.discard(ref)
        self.awaited.discard((OBJECT, ref))
        self._change(ref)

    def _change(self, ref: Ref) -> None:
        self._changed[ref] = None
        self._tell()


class Readers:
    """Who has read which keys, both ways round; `named` is told of objects that are asked for by name."""

    def __init__(self, named: Named | None = None) -> None:
        self._reads: dict[Hashable, frozenset[Key]] = {}
        self._readers: dict[Key, set[Hashable]] = {}
        self._named = named or Named()

    def record(self, reader: Hashable, keys: Iterable[Key]) -> set[Key]:
        """Say all that a reader read last; returns the keys that nobody reads any more."""
        new = frozenset(keys)
        old = self._reads.get(reader, frozenset())
        if new:
            self._reads[reader] = new
        else:
            self._reads.pop(reader, None)
        for key in new - old:
            readers = self._readers.get(key)
            if readers is None:
                readers = self._readers[key] = set()
                if (ref := self._by_name(key)) is not None:
                    self._named.began(ref)
            readers.add(reader)
        return {key for key in old - new if self._drop(key, reader)}

    def of(self, key: Key) -> set[Hashable]:
        """The readers of a key."""
        return self._readers.get(key, set())

    def reads(self, reader: Hashable) -> frozenset[Key]:
        """The keys that a reader read last."""
        return self._reads.get(reader, frozenset())

    def _by_name(self, key: Key) -> Ref | None:
        name, ref = key
        return ref if name == OBJECT and isinstance(ref, Ref) and ref.kind in self._named.kinds else None

    def _drop(self, key: Key, reader: Hashable) -> bool:
        readers = self._readers[key]
        readers.discard(reader)
        if readers:
            return False
        del self._readers[key]
        if (ref := self._by_name(key)) is not None:
            self._named.ceased(ref)
        return True


_FAILED = object()
"""In place of a value that could not be computed."""


class Derived:
    """The derived values that somebody reads, and the way from changed keys to the readers they concern."""

    def __init__(self, objects: Objects, named: Named | None = None) -> None:
        self._objects = objects
        self._values: dict[Key, tuple[Derivation[Any, Any], Any]] = {}
        self.readers = Readers(named)

    def value(self, key: Key, derivation: Derivation[Any, T]) -> T:
        """The value under a key, computed if nobody has asked yet."""
        _, held = self._values.get(key, (derivation, _FAILED))
        return cast(T, held) if held is not _FAILED else self._compute(key, derivation)

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
                elif self._changes(cast(Key, reader), *held):
                    queue.append(cast(Key, reader))
        return affected

    def _changes(self, key: Key, derivation: Derivation[Any, Any], before: object) -> bool:
        """Whether a value is another now. A failure is met by its readers, each by itself, when they ask for it."""
        with suppress(Exception):
            return bool(self._compute(key, derivation) != before)
        return True

    def dependants(self, key: Key) -> set[Hashable]:
        """The readers of a key, themselves or by derived values, be those the same or not."""
        found: set[Hashable] = set()
        queue: list[Hashable] = [key]
        while queue:
            new = self.readers.of(cast(Key, queue.pop())) - found
            found |= new
            queue.extend(reader for reader in new if reader in self._values)
        return found

    def depends(self, reader: Hashable, keys: Collection[Key]) -> bool:
        """Whether a reader read one of these keys last, itself or by a derived value."""
        seen: set[Key] = set()
        queue = [reader]
        while queue:
            read = self.readers.reads(queue.pop())
            if not read.isdisjoint(keys):
                return True
            derived = {key for key in read - seen if key in self._values}
            seen |= derived
            queue.extend(derived)
        return False

    def _compute(self, key: Key, derivation: Derivation[Any, T]) -> T:
        view, value = View(self._objects, self), cast(T, _FAILED)
        try:
            value = derivation.compute(view, key[1])
        finally:
            self._values[key] = (derivation, value)
            self.record(key, view.reads)
        return value

    def _drop(self, unread: set[Key]) -> None:
        for key in unread:
            if self._values.pop(key, None) is not None:
                self.record(key, ())
