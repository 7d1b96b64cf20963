"""Messages that many resources have in common: made once, and known to whoever encodes them, so encoded once too."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, TypeVarTuple

from betterproto2 import Message

MOST = 256
"""Shared messages of one kind: enough for what really comes again, and a bound for what users may write."""

SHARED: dict[int, Message] = {}
"""The shared messages by their id. They live as long as the program, and nobody may change them."""

Arguments = TypeVarTuple("Arguments")
MessageT = TypeVar("MessageT", bound=Message)


def shared(make: Callable[[*Arguments], MessageT]) -> Callable[[*Arguments], MessageT]:
    """Let a pure function give one message for equal arguments, the first ``MOST`` of them."""
    known: dict[tuple[Hashable, ...], MessageT] = {}

    def make_once(*arguments: *Arguments) -> MessageT:
        message = known.get(arguments)
        if message is None:
            message = make(*arguments)
            if len(known) < MOST:
                known[arguments] = SHARED[id(message)] = message
        return message

    return make_once
