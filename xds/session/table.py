"""The state table of one type's sub-stream: all states, all signals, in one place (as h11 does it).

A type of an aggregated stream has its own state, versions and nonces (the xDS specification, "Aggregated
Discovery Service"); this table says what each signal means in each state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType


class State(Enum):
    """Where a sub-stream is."""

    UNASKED = auto()
    """The client has not asked for the type on this stream."""
    IDLE = auto()
    """Every response was answered."""
    IN_FLIGHT = auto()
    """One response waits for its ACK or NACK."""


class Signal(Enum):
    """What can happen to a sub-stream."""

    SUBSCRIBE = auto()
    """A request without a nonce: a subscription change alone."""
    ACK = auto()
    """A request with the nonce in flight and no error."""
    NACK = auto()
    """A request with the nonce in flight and an error."""
    STALE = auto()
    """A request with any other nonce, or an error that belongs to no response."""
    SEND = auto()
    """A response leaves."""


class Action(Enum):
    """What to do on a signal, before the state changes."""

    OPEN = auto()
    """The first request of the type: its initial versions count, and an empty subscribe may mean `*`."""
    HONOUR = auto()
    """Take the subscription changes; delta honours them whatever the nonce says."""
    ACKNOWLEDGE = auto()
    """The client has what was in flight; then as HONOUR: Envoy merges subscription changes into ACKs."""
    REJECT = auto()
    """The client refused what was in flight; then as HONOUR."""
    RECORD = auto()
    """Remember what the response carries."""
    IMPOSSIBLE = auto()
    """No client can cause it: a bug of this server (`LocalError`)."""


TABLE: Mapping[tuple[State, Signal], tuple[Action, State]] = MappingProxyType(
    {
        (State.UNASKED, Signal.SUBSCRIBE): (Action.OPEN, State.IDLE),
        (State.UNASKED, Signal.ACK): (Action.IMPOSSIBLE, State.UNASKED),
        (State.UNASKED, Signal.NACK): (Action.IMPOSSIBLE, State.UNASKED),
        (State.UNASKED, Signal.STALE): (Action.OPEN, State.IDLE),
        (State.UNASKED, Signal.SEND): (Action.IMPOSSIBLE, State.UNASKED),
        (State.IDLE, Signal.SUBSCRIBE): (Action.HONOUR, State.IDLE),
        (State.IDLE, Signal.ACK): (Action.IMPOSSIBLE, State.IDLE),
        (State.IDLE, Signal.NACK): (Action.IMPOSSIBLE, State.IDLE),
        (State.IDLE, Signal.STALE): (Action.HONOUR, State.IDLE),
        (State.IDLE, Signal.SEND): (Action.RECORD, State.IN_FLIGHT),
        (State.IN_FLIGHT, Signal.SUBSCRIBE): (Action.HONOUR, State.IN_FLIGHT),
        (State.IN_FLIGHT, Signal.ACK): (Action.ACKNOWLEDGE, State.IDLE),
        (State.IN_FLIGHT, Signal.NACK): (Action.REJECT, State.IDLE),
        (State.IN_FLIGHT, Signal.STALE): (Action.HONOUR, State.IN_FLIGHT),
        (State.IN_FLIGHT, Signal.SEND): (Action.IMPOSSIBLE, State.IN_FLIGHT),
    }
)
