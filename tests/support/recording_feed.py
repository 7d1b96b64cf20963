"""A feed that keeps what a source says: the objects that are there, the batches, the errors."""

from __future__ import annotations

from xdserve.sources import Broken, Gone, Put


class RecordingFeed:
    """`objects` by reference; `batches` as they came; `broken` are those whose newest text is invalid."""

    def __init__(self):
        self.objects = {}
        self.broken = {}
        self.batches = []

    def apply(self, changes):
        self.batches.append(list(changes))
        for change in changes:
            match change:
                case Put():
                    self.objects[change.object.ref] = change.object
                    self.broken.pop(change.object.ref, None)
                case Gone():
                    self.objects.pop(change.ref, None)
                    self.broken.pop(change.ref, None)
                case Broken():
                    self.broken[change.ref] = change.problems

    def names(self, kind, namespace=None):
        found = self.objects if namespace is None else [ref for ref in self.objects if ref.namespace == namespace]
        return sorted(ref.name for ref in found if ref.kind == kind)
