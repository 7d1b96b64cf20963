"""Whose turn it is: namespaces one after the other, so that one with much to do does not hold up the others."""

from __future__ import annotations

from collections import OrderedDict

from translator.objects.ref import Ref


class Turns:
    """Objects that wait, once each; in each namespace in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, dict[Ref, None]] = OrderedDict()

    def add(self, ref: Ref) -> None:
        """An object waits."""
        self._waiting.setdefault(ref.namespace, {})[ref] = None

    def take(self) -> Ref:
        """Take out the next; raises KeyError if there is none."""
        namespace, waiting = self._waiting.popitem(last=False)
        ref = next(iter(waiting))
        del waiting[ref]
        if waiting:
            self._waiting[namespace] = waiting
        return ref

    def discard(self, ref: Ref) -> None:
        """An object waits no more."""
        waiting = self._waiting.get(ref.namespace, {})
        waiting.pop(ref, None)
        if not waiting:
            self._waiting.pop(ref.namespace, None)

    def __bool__(self) -> bool:
        return bool(self._waiting)
