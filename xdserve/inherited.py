"""The policies that an earlier program had in force, for as long as this one has not decided itself."""

from __future__ import annotations

from collections.abc import Mapping

from translator.objects.policy import TrafficPolicy
from translator.objects.ref import Ref
from translator.planners import Planned


class Inherited:
    """Policies in force by target, each until its target is planned; and the targets that have another one since.

    Args:
        accepted: what was in force, by target.
        watched: whether somebody asks what changes; else it is not collected.
    """

    def __init__(self, accepted: Mapping[Ref, TrafficPolicy] | None = None, *, watched: bool = False) -> None:
        self._accepted = dict(accepted or {})
        self._policies = {policy.ref: policy for policy in self._accepted.values()}
        self._changed: set[Ref] = set()
        self._watched = watched

    def accepted(self, target: Ref) -> TrafficPolicy | None:
        """The policy of a target that was not planned yet."""
        return self._accepted.get(target)

    def take(self, ref: Ref) -> TrafficPolicy | None:
        """A policy by its own reference, once: what comes under that name later is another."""
        return self._policies.pop(ref, None)

    def planned(self, target: Ref, planned: Planned, last_good: TrafficPolicy | None) -> None:
        """A target was planned; what that made of a target that is there counts from now on."""
        if target in self._accepted:
            if planned.service is None:
                return
            self.take(self._accepted.pop(target).ref)
        if self._watched and planned.accepted is not last_good and planned.accepted != last_good:
            self._changed.add(target)

    def clear(self) -> None:
        """Forget what was not used."""
        self._changed.update(self._accepted)
        self._accepted.clear()
        self._policies.clear()

    def drain(self) -> list[Ref]:
        """The targets that have another policy in force than at the last call."""
        drained = sorted(self._changed)
        self._changed.clear()
        return drained
