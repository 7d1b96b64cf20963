"""The state table of one type's sub-stream: all states, all signals, in one place (as h11 does it).

A type of an aggregated stream has its own state, versions and nonces (the xDS specification, "Aggregated
Discovery Service"); this table says what each signal means in each state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType


class _Word(Enum):
    """An enum that is looked up as fast as any object: Enum's own hash is a function of Python."""

    __hash__ = object.__hash__


class State(_Word):
    """Where a sub-stream is."""

    UNASKED = auto()
    """The client has not asked for the type on this stream."""
    IDLE = auto()
    """Every response was answered."""
    IN_FLIGHT = auto()
    """A response waits for its ACK or NACK; or several, where one had to overtake."""


class Signal(_Word):
    """What can happen to a sub-stream."""

    SUBSCRIBE = auto()
    """A request without a nonce: a subscription change alone."""
    ACK = auto()
    """A request with the nonce of the one response in flight and no error."""
    NACK = auto()
    """A request with the nonce of the one response in flight and an error."""
    ACK_OF_SOME = auto()
    """An ACK, and other responses are still in flight."""
    NACK_OF_SOME = auto()
    """A NACK, and other responses are still in flight."""
    AGAIN = auto()
    """A request with the nonce of the last response, which was answered already."""
    STALE = auto()
    """A request with any other nonce, or an error that belongs to no response."""
    SEND = auto()
    """A response leaves."""
    OVERTAKE = auto()
    """A response leaves that may not wait for the answer to another: a rollback, or the answer is overdue."""


class Action(_Word):
    """What to do on a signal, before the state changes."""

    OPEN = auto()
    """The first request of the type: its initial versions count, and an empty subscribe may mean `*`."""
    HONOUR = auto()
    """Take the subscription changes."""
    REPEAT = auto()
    """As HONOUR; where nothing is new the client wants what it has once more."""
    ACKNOWLEDGE = auto()
    """The client has what was in flight; then as HONOUR: Envoy merges subscription changes into ACKs."""
    REJECT = auto()
    """The client refused what was in flight; then as HONOUR."""
    RECORD = auto()
    """Remember what the response carries."""
    IGNORE = auto()
    """Nothing: what the client says is out of date."""
    IMPOSSIBLE = auto()
    """No client can cause it: a bug of this server (`LocalError`)."""


Table = Mapping[tuple[State, Signal], tuple[Action, State]]

_IMPOSSIBLE = {
    (State.UNASKED, Signal.ACK): (Action.IMPOSSIBLE, State.UNASKED),
    (State.UNASKED, Signal.NACK): (Action.IMPOSSIBLE, State.UNASKED),
    (State.UNASKED, Signal.ACK_OF_SOME): (Action.IMPOSSIBLE, State.UNASKED),
    (State.UNASKED, Signal.NACK_OF_SOME): (Action.IMPOSSIBLE, State.UNASKED),
    (State.UNASKED, Signal.AGAIN): (Action.IMPOSSIBLE, State.UNASKED),
    (State.UNASKED, Signal.SEND): (Action.IMPOSSIBLE, State.UNASKED),
    (State.UNASKED, Signal.OVERTAKE): (Action.IMPOSSIBLE, State.UNASKED),
    (State.IDLE, Signal.ACK): (Action.IMPOSSIBLE, State.IDLE),
    (State.IDLE, Signal.NACK): (Action.IMPOSSIBLE, State.IDLE),
    (State.IDLE, Signal.ACK_OF_SOME): (Action.IMPOSSIBLE, State.IDLE),
    (State.IDLE, Signal.NACK_OF_SOME): (Action.IMPOSSIBLE, State.IDLE),
    (State.IDLE, Signal.OVERTAKE): (Action.IMPOSSIBLE, State.IDLE),
    (State.IN_FLIGHT, Signal.SEND): (Action.IMPOSSIBLE, State.IN_FLIGHT),
}

_COMMON = _IMPOSSIBLE | {
    (State.UNASKED, Signal.SUBSCRIBE): (Action.OPEN, State.IDLE),
    (State.IDLE, Signal.SUBSCRIBE): (Action.HONOUR, State.IDLE),
    (State.IDLE, Signal.SEND): (Action.RECORD, State.IN_FLIGHT),
    (State.IN_FLIGHT, Signal.SUBSCRIBE): (Action.HONOUR, State.IN_FLIGHT),
    (State.IN_FLIGHT, Signal.ACK): (Action.ACKNOWLEDGE, State.IDLE),
    (State.IN_FLIGHT, Signal.NACK): (Action.REJECT, State.IDLE),
    (State.IN_FLIGHT, Signal.ACK_OF_SOME): (Action.ACKNOWLEDGE, State.IN_FLIGHT),
    (State.IN_FLIGHT, Signal.NACK_OF_SOME): (Action.REJECT, State.IN_FLIGHT),
    (State.IN_FLIGHT, Signal.OVERTAKE): (Action.RECORD, State.IN_FLIGHT),
}

DELTA: Table = MappingProxyType(
    _COMMON
    | {
        # Delta honours subscription changes whatever the nonce says.
        (State.UNASKED, Signal.STALE): (Action.OPEN, State.IDLE),
        (State.IDLE, Signal.STALE): (Action.HONOUR, State.IDLE),
        (State.IN_FLIGHT, Signal.STALE): (Action.HONOUR, State.IN_FLIGHT),
        (State.IDLE, Signal.AGAIN): (Action.HONOUR, State.IDLE),
        (State.IN_FLIGHT, Signal.AGAIN): (Action.HONOUR, State.IN_FLIGHT),
    }
)

SOTW: Table = MappingProxyType(
    _COMMON
    | {
        # A stale request names what the client wanted before it read the last response; it will ask again.
        (State.UNASKED, Signal.STALE): (Action.IGNORE, State.UNASKED),
        (State.IDLE, Signal.STALE): (Action.IGNORE, State.IDLE),
        (State.IN_FLIGHT, Signal.STALE): (Action.IGNORE, State.IN_FLIGHT),
        (State.IDLE, Signal.AGAIN): (Action.REPEAT, State.IDLE),
        (State.IN_FLIGHT, Signal.AGAIN): (Action.IGNORE, State.IN_FLIGHT),
    }
)
