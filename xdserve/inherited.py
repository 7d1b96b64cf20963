"""What an earlier program had in force of policies and components, for as long as this one has not decided itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from translator.objects.policy import TrafficPolicy
from translator.objects.ref import Ref
from translator.planners import Planned
from translator.planners.components import ActiveComponents, Before, Unknown


class Inherited:
    """What was in force by target, each until its target is planned; and the targets that have something else since.

    Args:
        accepted: the policies, by target.
        active: the components that got the requests, by target.
        watched: whether somebody asks what changes; else it is not collected.
    """

    def __init__(
        self,
        accepted: Mapping[Ref, TrafficPolicy] | None = None,
        active: Mapping[Ref, ActiveComponents] | None = None,
        *,
        watched: bool = False,
    ) -> None:
        self._accepted = dict(accepted or {})
        self._active = dict(active or {})
        self._restored: Mapping[Ref, ActiveComponents] | None = dict(self._active)
        self._late: set[Ref] = set()
        self._policies = {policy.ref: policy for policy in self._accepted.values()}
        self._changed: set[Ref] = set()
        self._watched = watched

    def accepted(self, target: Ref) -> TrafficPolicy | None:
        """The policy of a target that was not planned yet."""
        return self._accepted.get(target)

    def active(self, target: Ref) -> ActiveComponents | None:
        """The active components of a target that was not planned yet."""
        return self._active.get(target)

    def before(self, target: Ref, active: ActiveComponents | None) -> Before:
        """What to begin a target's plan with; ``active`` is what its last plan said.

        In the first pass every plan begins with what an earlier program knew, so that the order does not matter.
        """
        if self._restored is not None:
            return self._restored.get(target, Unknown.RESTARTED)
        known = active or self._active.get(target)
        return known or (Unknown.RESTARTED if target in self._late else Unknown.NEW)

    def unreadable(self, ref: Ref) -> None:
        """An object's text cannot be read; in the first pass that means that it may have been there before."""
        if self._restored is not None:
            self._late.add(ref)

    def open(self, waiting: Iterable[Ref]) -> None:
        """The first pass is over; targets that wait to be planned are not new."""
        self._late.update(waiting)
        self._restored = None

    def take(self, ref: Ref) -> TrafficPolicy | None:
        """A policy by its own reference, once: what comes under that name later is another."""
        return self._policies.pop(ref, None)

    def planned(
        self, target: Ref, planned: Planned, last_good: TrafficPolicy | None, known: ActiveComponents | None
    ) -> None:
        """A target was planned; what that made of a target that is there counts from now on."""
        if planned.active is not None:
            self._late.discard(target)
        if target in self._accepted or target in self._active:
            if planned.service is None:
                return
            self._use(target)
        if self._watched and (_is_other(planned.accepted, last_good) or planned.active != known):
            self._changed.add(target)

    def _use(self, target: Ref) -> None:
        self._active.pop(target, None)
        if (policy := self._accepted.pop(target, None)) is not None:
            self.take(policy.ref)

    def clear(self, waiting: Collection[Ref]) -> None:
        """Forget what was not used, but of targets that wait to be planned."""
        for target in (self._accepted.keys() | self._active.keys()).difference(waiting):
            self._accepted.pop(target, None)
            self._active.pop(target, None)
            self._changed.add(target)
        self._policies.clear()

    def drain(self) -> list[Ref]:
        """The targets that have another policy or other components in force than at the last call."""
        drained = sorted(self._changed)
        self._changed.clear()
        return drained


def _is_other(policy: TrafficPolicy | None, known: TrafficPolicy | None) -> bool:
    return policy is not known and policy != known
