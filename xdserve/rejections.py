"""What Envoys refuse now, of every gateway: since when, whose fault it is, and what is served instead.

The one place that knows all of it: the log, `/debug`, the metrics and whoever writes conditions read it here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from translator.objects.ref import Origin
from translator.plan import Reason
from xds.memory import Cause, Rejection
from xds.types import ResourceType
from xdserve.ledger import Entry, Ledger, Place, whereabouts
from xdserve.metrics import Metrics
from xdserve.printing import NOUNS
from xdserve.words import shown, shown_of_secret

logger = structlog.get_logger("xdserve.rejections")

OWNER = "rejections"
"""Who says a rejection in the ledger."""

Key = tuple[ResourceType, str, str]
"""Type, name and version: these stay while a rejection lasts. Who refuses it, and what is served, may change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A rejection that lasts: which gateway's, and since when."""

    gateway: str
    rejection: Rejection
    since: datetime

    @property
    def origin(self) -> Origin | None:
        """The object and field that the resource comes from."""
        return self.rejection.origin if isinstance(self.rejection.origin, Origin) else None

    @property
    def node(self) -> str:
        """The node id of the Envoy that refuses it, as it may be shown."""
        return shown(self.rejection.refusal.node)

    @property
    def words(self) -> str:
        """What the Envoy said, as it may be shown: one line, bounded, and nothing that a secret holds."""
        fit = shown_of_secret if self.rejection.type is ResourceType.SECRET else shown
        return fit(self.rejection.refusal.message)

    @property
    def message(self) -> str:
        """What it means, in a line."""
        found = self.rejection
        what = f"the {NOUNS[found.type]} {found.name} (version {found.refusal.version})"
        if found.refusal.cause is Cause.QUARANTINED:
            return f"In quarantine: {what}, {self.instead}: {self.words}"
        return f"Envoy {self.node} refuses {what}, {self.instead}: {self.words}"

    @property
    def disputed(self) -> bool:
        """Whether some Envoys have the version, and nothing else is good: then it is served all the same."""
        return self.rejection.served == self.rejection.refusal.version

    @property
    def instead(self) -> str:
        """What is served instead, in words."""
        if self.rejection.served is None:
            return "and no version is known to be good, so Envoys keep what they have"
        if self.disputed:
            return "and others have it, so it stays where nothing else is good"
        return f"version {self.rejection.served} is served instead"


Subscriber = Callable[[str, tuple[Standing, ...]], None]
"""Is told a gateway and all its rejections, in the event loop. It must not raise, and not block."""


class Rejections:
    """The rejections of all gateways.

    Whoever writes conditions reads it once from beginning to end, subscribes in the same breath, and is told from then
    on. How long a rejection lasts is known since the program's start.

    Args:
        ledger: gets them as the fault of the objects that they come from.
        metrics: counts what is in quarantine, and shows how many there are.
        now: the time of day.
    """

    def __init__(self, ledger: Ledger, metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._now = now
        self._standing: dict[str, Mapping[Key, Standing]] = {}
        self._counts: Counter[ResourceType] = Counter()
        self._subscribers: dict[object, Subscriber] = {}
        self._quarantined = metrics.quarantined
        for type_ in ResourceType:
            metrics.refused_resources.labels(type=type_.short).set_function(partial(self._counts.__getitem__, type_))

    # -- Questions ---------------------------------------------------------------------------------------------

    def of(self, gateway: str) -> tuple[Standing, ...]:
        """The rejections of a gateway, in send order and by name."""
        return tuple(sorted(self._standing.get(gateway, {}).values(), key=_place_in_list))

    def __iter__(self) -> Iterator[Standing]:
        """All of them, by gateway; they may change while who reads takes pauses."""
        return (one for gateway in sorted(self._standing) for one in self.of(gateway))

    def __len__(self) -> int:
        return self._counts.total()

    def place(self, standing: Standing) -> Place | None:
        """The document that the refused resource comes from, where the source knows it."""
        return self._ledger.place(standing.origin.object) if standing.origin else None

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Be told of each gateway whose rejections change; gives what ends that."""
        self._subscribers[key := object()] = subscriber

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    # -- What the server says ----------------------------------------------------------------------------------

    def say(self, gateway: str, rejections: Iterable[Rejection]) -> None:
        """Replace all of a gateway; what was there keeps its date. Each is logged when it begins and when it ends."""
        before = self._standing.get(gateway, {})
        now = self._now()
        standing = {
            key: Standing(gateway=gateway, rejection=found, since=before[key].since if key in before else now)
            for key, found in ((_key(found), found) for found in rejections)
        }
        self._replace(gateway, before, standing)
        for one in (standing[key] for key in standing if key not in before):
            self._begun(one)
        for one in (before[key] for key in before if key not in standing):
            logger.info("refused no more", **self._fields(one))
        for subscriber in tuple(self._subscribers.values()):
            subscriber(gateway, self.of(gateway))

    def _replace(self, gateway: str, before: Mapping[Key, Standing], standing: Mapping[Key, Standing]) -> None:
        self._counts.subtract(key[0] for key in before)
        self._counts.update(key[0] for key in standing)
        if standing:
            self._standing[gateway] = standing
        else:
            self._standing.pop(gateway, None)
        self._ledger.keep((OWNER, gateway), dict(_entries(standing.values())))

    def _begun(self, one: Standing) -> None:
        refusal = one.rejection.refusal
        if refusal.cause is Cause.QUARANTINED:
            self._quarantined.inc()
        meaning = _DISPUTED if one.disputed else _BEGUN[refusal.cause, one.rejection.served is not None]
        logger.warning(meaning, **self._fields(one), node=one.node, code=refusal.code, message=one.words)

    def _fields(self, one: Standing) -> dict[str, object]:
        found = one.rejection
        fields: dict[str, object] = {"gateway": one.gateway, "type": found.type.short, "name": found.name}
        fields |= {"version": found.refusal.version, "served": found.served}
        if one.origin is not None:
            fields |= {"object": str(one.origin.object), "field": one.origin.field}
        return fields | whereabouts(self.place(one), one.origin.object if one.origin else None)


_GOOD = "the last good version is served instead, until the object changes"
_NONE = "no version is known to be good, so Envoys keep what they have, and new ones get none"
_DISPUTED = "an Envoy refuses this version, which others have: it is served, for nothing else is good"
_BEGUN = {
    (Cause.REFUSED, True): f"an Envoy refuses this version: {_GOOD}",
    (Cause.REFUSED, False): f"an Envoy refuses this version: {_NONE}",
    (Cause.QUARANTINED, True): f"Envoys were lost with this version: {_GOOD}",
    (Cause.QUARANTINED, False): f"Envoys were lost with this version: {_NONE}",
}


def _key(found: Rejection) -> Key:
    return found.type, found.name, found.refusal.version


def _place_in_list(one: Standing) -> tuple[int, str]:
    return _ORDER[one.rejection.type], one.rejection.name


def _entries(standing: Iterable[Standing]) -> Iterator[tuple[Entry, datetime]]:
    for one in standing:
        if one.origin is not None:
            yield Entry(None, one.origin.object, one.origin.field, Reason.REJECTED.value, one.message), one.since


_ORDER = {type_: place for place, type_ in enumerate(ResourceType)}
