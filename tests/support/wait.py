"""Waiting for a condition with a deadline; tests never sleep."""

from __future__ import annotations

import inspect

from xdserve.demo.waiting import until


async def wait_until(predicate, seconds=10.0, what=None, every=0.005):
    """Ask `predicate` (plain or async) until it gives something true, and return that.

    Raises TimeoutError, which names `what` (else the predicate) and the last answer.
    """

    async def probe():
        value = predicate()
        return await value if inspect.isawaitable(value) else value

    return await until(probe, what or getattr(predicate, "__name__", "a condition"), seconds, every)
