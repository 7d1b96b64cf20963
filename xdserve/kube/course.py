"""What a reflector does next: list, watch, or look whether the resource is there at all. No I/O, no clock.

The rules are those of the API's concepts page (https://kubernetes.io/docs/reference/using-api/api-concepts):
a watch goes on from the last resourceVersion that was seen, also after an outage; 410 means that the apiserver has
forgotten what happened since, so that only a list tells it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

FIRST_DELAY = 0.2
LONGEST_DELAY = 8.0
"""Seconds between tries while the apiserver is away: short, for what it does not tell meanwhile is not served."""

FORBIDDEN_DELAY = 20.0
DOUBTED = 4
"""Refusals in a row that are not believed yet: an apiserver that starts knows no roles at first, and refuses all."""

EXPIRED_SPREAD = 0.5
"""Seconds over which lists are spread after 410, which all watches of all replicas get at one moment."""

CONFIRM_DELAY = 1.0
"""Seconds between the two looks that must both miss a resource before it is believed to be gone."""

POLL_DELAY = 10.0
SHORT_LIFE = 1.0
"""Seconds: a watch that ends sooner was not ended by its timeout."""

SILENCES = 2
"""Silent watches in a row after which all is listed: of a version that is yet to be, as after etcd was restored from a
backup, an apiserver tells nothing at all."""

LONGEST_ASKED = 120.0


class Trouble(Enum):
    """Why a request or a watch failed."""

    AWAY = "away"  # no connection, no answer in time, 429, 5xx
    EXPIRED = "expired"  # 410: the resourceVersion is too old
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    BROKEN = "broken"  # what came cannot be understood


_LIST_AGAIN = (Trouble.EXPIRED, Trouble.BROKEN)
"""After these all is listed anew, which is dear: not again and again for watches that bring nothing."""


class Failed(Exception):
    """A request or a watch failed; the text is one line. ``retry_after`` is what the apiserver asks for, in seconds.

    ``silent`` is a watch that was taken, and on which nothing came for long.
    """

    def __init__(self, trouble: Trouble, message: str, retry_after: float = 0.0, *, silent: bool = False) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.retry_after = retry_after
        self.silent = silent


class Do(Enum):
    """What to do."""

    LIST = "list"
    WATCH = "watch"
    LOOK = "look"


class Step(NamedTuple):
    """What to do, and after how many seconds."""

    do: Do
    after: float


class Backoff:
    """Delays that double up to a longest one, each between half and all of it; ``random`` gives 0..1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._next = FIRST_DELAY

    def delay(self) -> float:
        """The next one."""
        delay, self._next = self._next, min(2 * self._next, LONGEST_DELAY)
        return delay * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """All is well again."""
        self._next = FIRST_DELAY


class Course:
    """The state of one reflector: its resourceVersion, whether the resource is there, and how often trying failed.

    ``resource_version`` is where a watch goes on; None asks for a list. ``absent`` is whether the cluster is known not
    to serve the resource.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.resource_version: str | None = None
        self.absent = False
        self._random = random
        self._backoff = Backoff(random)
        self._step = Step(Do.LIST, 0.0)
        self._failures = 0
        self._refusals = 0
        self._fruitless = 0
        self._misses = 0
        self._silences = 0
        self._said: str | None = None
        self._why: Trouble | None = None

    @property
    def step(self) -> Step:
        """What to do next."""
        return self._step

    @property
    def trouble(self) -> str | None:
        """What a person should know: a failure that was no single one, or that does not pass by itself."""
        return self._said

    def listed(self, resource_version: str) -> None:
        """A list is there, whole."""
        self.resource_version = resource_version
        self.absent = False
        self._misses = 0
        self._well()
        self._step = Step(Do.WATCH, 0.0)

    def opened(self) -> None:
        """A watch has been taken."""
        self._misses = 0
        self._well()

    def moved(self, resource_version: str) -> None:
        """An event or a bookmark has come."""
        self.resource_version = resource_version
        self._silences = 0
        self._fruitful()

    def ended(self, seconds: float) -> None:
        """A watch has ended in order, after so many seconds."""
        if seconds >= SHORT_LIFE:
            self._fruitful()
            self._step = Step(Do.WATCH, 0.0)
        else:
            self._step = Step(Do.WATCH, self._backoff.delay())

    def looked(self, *, found: bool) -> bool:
        """Whether discovery has the resource; gives whether it is believed to be gone, just now.

        An apiserver that starts, or one of several that has not yet heard of a CRD, says 404 too: only two looks in a
        row, with time between them, say that it is not installed.
        """
        if found:
            self._misses = 0
            self._well()
            self._step = Step(Do.LIST, self._backoff.delay() if self._failures else 0.0)
            return False
        self._misses += 1
        if self._misses < 2:
            self._step = Step(Do.LOOK, CONFIRM_DELAY * (1 + self._random() / 2))
            return False
        self._step = Step(Do.LOOK, POLL_DELAY * (0.75 + self._random() / 2))
        news = not self.absent
        self.absent, self.resource_version = True, None
        self._well()
        self._backoff.reset()
        return news

    def failed(self, failure: Failed) -> None:
        """The step has failed."""
        self._failures += 1
        if failure.trouble is not Trouble.NOT_FOUND:
            self._misses = 0
        self._fruitless += failure.trouble in _LIST_AGAIN
        self._refused(failure)
        if self._is_believed():
            # While it is the same trouble its first words stay: each other text would be told anew.
            self._said = self._said if failure.trouble is self._why and self._said else str(failure)
            self._why = failure.trouble
        self._step = self._after(failure)

    def _is_believed(self) -> bool:
        """Whether it is to be told: it was no single failure, nor one of an apiserver that starts."""
        if self._refusals:
            return self._refusals > DOUBTED
        return self._failures > 1 or self._fruitless > DOUBTED

    def _refused(self, failure: Failed) -> None:
        """Count refusals in a row; with the first of them the apiserver is back, however long it was away."""
        if failure.trouble is not Trouble.FORBIDDEN:
            self._refusals = 0
            return
        self._refusals += 1
        if self._refusals == 1:
            self._backoff.reset()

    def _after(self, failure: Failed) -> Step:
        do = self._step.do
        match failure.trouble:
            case Trouble.EXPIRED:
                self.resource_version = None
                once = self._failures == self._fruitless == 1
                delay = EXPIRED_SPREAD * self._random() if once else self._backoff.delay()
                return Step(Do.LIST, delay)
            case Trouble.BROKEN:
                # The same watch would bring the same again.
                self.resource_version = None
                return Step(Do.LOOK if do is Do.LOOK else Do.LIST, self._backoff.delay())
            case Trouble.NOT_FOUND:
                return Step(Do.LOOK, self._backoff.delay())
            case Trouble.FORBIDDEN:
                if self._refusals <= DOUBTED:
                    return Step(do, self._backoff.delay())
                return Step(do, FORBIDDEN_DELAY * (0.75 + self._random() / 2))
            case Trouble.AWAY:
                do = self._unheard(do) if failure.silent else do
                return Step(do, max(self._backoff.delay(), min(failure.retry_after, LONGEST_ASKED)))

    def _unheard(self, do: Do) -> Do:
        """What to do after a watch that has brought nothing for long, not even a bookmark."""
        self._silences += 1
        if self._silences < SILENCES:
            return do
        self.resource_version, self._silences = None, 0
        return Do.LIST

    def _well(self) -> None:
        """An answer has come; after lists whose watches bring nothing, only what a watch brings is good news."""
        self._failures = self._refusals = 0
        if self._fruitless <= DOUBTED:
            self._said = None

    def _fruitful(self) -> None:
        """A watch has brought something, or has lasted."""
        if self._fruitless > DOUBTED:
            self._said = None
        self._fruitless = 0
        self._backoff.reset()
