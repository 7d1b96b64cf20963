"""What is said of an object: from what is known of it to its conditions, and to the status that Kubernetes is to hold.

Pure: who calls brings the time, and what the status was. Equal input gives an equal status, so that nothing is written
where nothing has changed; `lastTransitionTime` moves with a condition's status alone. Shapes are those of Gateway API:
`metav1.Condition`, and `PolicyAncestorStatus` for policies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from hashlib import blake2b
from typing import Any, NamedTuple

from translator.objects.ref import Ref
from translator.plan import Condition, Reason
from xds.scope import Scope
from xds.types import ResourceType
from xdserve.ledger import Entry

CONTROLLER = "xdserve.io/controller"
"""The name under which xdserve speaks in the status of policies, and reports Events."""

GATEWAY_PROGRAMMED = "xdserve.io/GatewayProgrammed"
"""The condition on objects of other projects, which have conditions of their own."""

PENDING, REJECTED, NO_GATEWAY = "Pending", "Rejected", "NoGateway"
WAITING = frozenset({PENDING, NO_GATEWAY})
"""What passes by itself, as when a gateway starts; what else keeps a condition from being true is to be mended."""

NOT_ACCEPTED = "not accepted (see Accepted)"
_NO_TARGET = Reason.TARGET_NOT_FOUND.value

LONGEST_MESSAGE = 4_000
"""Characters of a condition's message; the CRDs allow 32768, but whoever lists objects carries all of it."""
MOST_ANCESTORS = 16


class Verdict(NamedTuple):
    """One condition, without its dates: `status` is `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str
    message: str


class Progress(Enum):
    """How far the Envoys of a gateway have come that are connected to one replica."""

    ABSENT = "absent"
    """None is connected."""
    PENDING = "pending"
    DONE = "done"
    """All have acknowledged all that is served."""


class Refused(NamedTuple):
    """What Envoys refuse, as a line: the object and field that it comes from, where that is known."""

    object: Ref | None
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.object} {self.field}: {self.message}" if self.object else self.message


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one replica knows of a gateway's Envoys, and of which configuration: its `digest`.

    `version` is the replica's own: another one may make another configuration of the same objects.
    """

    digest: str
    progress: Progress
    refused: tuple[Refused, ...] = ()
    version: str = ""


def digest(scope: Scope) -> str:
    """Of all that a gateway is to have but its endpoints, which change by the second; the same in every replica."""
    told = sorted(
        f"{type_.short}\0{name}\0{found.version}"
        for type_, name in scope.keys()  # noqa: SIM118 - a method of its own
        if type_ is not ResourceType.ENDPOINT and (found := scope.wanted(type_, name))
    )
    return blake2b("\n".join(told).encode(), digest_size=6).hexdigest()


# -- Verdicts --------------------------------------------------------------------------------------------------


def said(entries: Collection[Entry]) -> Iterator[Verdict]:
    """Accepted and ResolvedRefs: true unless something is said against them; without a target no backend is seen."""
    for condition in (Condition.ACCEPTED, Condition.RESOLVED_REFS):
        reason, message = against(entries, condition) or (condition.value, "")
        if condition is Condition.RESOLVED_REFS and any(one.reason == _NO_TARGET for one in entries):
            yield Verdict(condition.value, "Unknown", PENDING, f"{NOT_ACCEPTED}, so not looked at")
        else:
            yield verdict(condition.value, reason, message, good=condition.value)


def against(entries: Iterable[Entry], condition: Condition) -> tuple[str, str] | None:
    """The reason and message of what is said against a condition, if anything is."""
    found = [entry for entry in entries if entry.condition is condition]
    if not found:
        return None
    return found[0].reason, "; ".join(dict.fromkeys(map(_line, found)))


def _line(entry: Entry) -> str:
    """With the field, but where none is at fault."""
    blames = entry.field and entry.reason != Reason.FAILED.value
    return f"{entry.field}: {entry.message}" if blames else entry.message


def verdict(kind: str, reason: str, message: str, *, good: str = Condition.PROGRAMMED.value) -> Verdict:
    """A condition that is true if its reason is the good one.

    What waits is unknown on objects of others: who looks after those may take each `False` for a fault, as Argo CD
    does. On ours it is `False`, as Gateway API has it of `Programmed` and `Pending`.
    """
    waits = kind == GATEWAY_PROGRAMMED and reason in WAITING
    return Verdict(kind, "True" if reason == good else "Unknown" if waits else "False", reason, message)


def refused_entries(ref: Ref, own: Delivery, others: Iterable[Delivery]) -> Iterator[Entry]:
    """What Envoys of other replicas refuse of an object, of the configuration that is wanted here too."""
    for one in others:
        for found in one.refused if one.digest == own.digest else ():
            if found.object == ref:
                yield Entry(None, ref, found.field, Reason.REJECTED.value, found.message)


def connected(*deliveries: Delivery) -> list[Delivery]:
    """Of those that have Envoys."""
    return [one for one in deliveries if one.progress is not Progress.ABSENT]


def programmed(gateway: str, own: Delivery, others: Sequence[Delivery], hint: str = "") -> tuple[str, str]:
    """The reason and message of whether all Envoys of a gateway have what it is to have.

    `hint` goes on where none is connected.

    What another replica says counts for the configuration that it speaks of; while that is another than here, one of
    the two has yet to hear of an edit.
    """
    refused = [str(line) for one in (own, *others) if one.digest == own.digest for line in one.refused]
    if refused:
        return REJECTED, "; ".join(dict.fromkeys(refused))
    found = connected(own, *others)
    if not found:
        return NO_GATEWAY, f"no Envoy of {gateway} is connected{hint}"
    if any(one.digest != own.digest or one.progress is Progress.PENDING for one in found):
        return PENDING, f"not every Envoy of {gateway} has acknowledged its configuration yet"
    return Condition.PROGRAMMED.value, f"every connected Envoy of {gateway} has acknowledged its configuration"


def unlike(gateway: str, own: Delivery, others: Sequence[Delivery]) -> bool:
    """Whether replicas of another version are all that keeps a gateway from being programmed, as while xdserve rolls.

    Of Envoys that are connected to those nothing can be said: their configuration may be another for the version alone.
    """
    differing = [one for one in connected(*others) if one.version != own.version and one.digest != own.digest]
    alike = [one for one in others if one not in differing]
    return bool(differing) and programmed(gateway, own, alike)[0] in (Condition.PROGRAMMED.value, NO_GATEWAY)


# -- Status on Kubernetes --------------------------------------------------------------------------------------

Document = Mapping[str, Any]


def conditions(
    previous: Sequence[Document], verdicts: Iterable[Verdict], generation: int | None, now: datetime
) -> list[dict[str, Any]]:
    """The list `conditions` of one who owns all of it; without a generation it does not say which one was observed."""
    before = {one.get("type"): one for one in previous}
    return [_condition(before.get(found.type), found, generation, now) for found in verdicts]


def with_condition(previous: Sequence[Document], found: Verdict, now: datetime) -> list[dict[str, Any]]:
    """The list `conditions` of others with ours in it: in its place if it is there, else at the end.

    No observed generation is said: KServe's conditions have no such field, and the apiserver would drop it.
    """
    ours = [index for index, one in enumerate(previous) if one.get("type") == found.type]
    made = _condition(previous[ours[0]] if ours else None, found, None, now)
    place = ours[0] if ours else len(previous)
    others = [dict(one) for one in previous if one.get("type") != found.type]
    return [*others[:place], made, *others[place:]]


def policy_status(
    previous: Document, ancestor: Document, verdicts: Iterable[Verdict], generation: int, now: datetime
) -> dict[str, Any]:
    """The status of a policy: one entry for its target; what other controllers say stays."""
    entries = previous.get("ancestors") or ()
    ours = [one for one in entries if one.get("controllerName") == CONTROLLER and one.get("ancestorRef") == ancestor]
    others = [dict(one) for one in entries if one.get("controllerName") != CONTROLLER]
    made = {
        "ancestorRef": dict(ancestor),
        "controllerName": CONTROLLER,
        "conditions": conditions(ours[0]["conditions"] if ours else (), verdicts, generation, now),
    }
    return {"ancestors": [*others[: MOST_ANCESTORS - 1], made]}


def _condition(before: Document | None, found: Verdict, generation: int | None, now: datetime) -> dict[str, Any]:
    same = before is not None and before.get("status") == found.status
    made = found._asdict() | {"message": _bounded(found.message)}
    if generation is not None:
        made["observedGeneration"] = generation
    return made | {"lastTransitionTime": (same and before and before.get("lastTransitionTime")) or _time(now)}


def _bounded(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 3] + "..."


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
