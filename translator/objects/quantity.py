"""Quantities of Kubernetes: amounts of processors and of memory, in the spelling that the apiserver keeps.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity. What comes in another spelling
(``1024Mi``) is kept as the apiserver would (``1Gi``), so that what was written equals what is found there. Exponents
and parts of a byte are left out.
"""

from __future__ import annotations

import re
from decimal import Decimal
from string import ascii_letters
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from translator.objects.refusal import refuse

_CPU = r"([0-9]{1,6}(\.[0-9]{1,3})?|[0-9]{1,9}m)"
_MEMORY = r"([0-9]{1,15}|[0-9]{1,9}(k|M|G|Ki|Mi|Gi))"

BODY_LIMITS = ("1Mi", "1Gi")
"""The least and the most of a request that is kept for retries. Over HTTP/2 less than the default stream window of 1Mi
would not hold: Envoy takes in a whole window."""

WINDOW_SIZES = ("64Ki", "1Gi")
"""The least and the most of a window of HTTP/2's flow control; Envoy takes 65,535 bytes to 2 GiB."""

_DECIMAL = {"m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}
_LARGER = {"T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18)}
_BINARY = {"": Decimal(1), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30)}
_LARGER_BINARY = {"Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60)}
_UNITS = _DECIMAL | _LARGER | _BINARY | _LARGER_BINARY


def amount(quantity: str) -> Decimal:
    """The number that a quantity is: processors, or bytes."""
    number = quantity.rstrip(ascii_letters)
    return Decimal(number) * _UNITS[quantity[len(number) :]]


def _canonical(quantity: str) -> str:
    """The largest unit of the same kind that gives a whole number."""
    value = amount(quantity)
    units = _BINARY | _LARGER_BINARY if quantity.endswith("i") else _DECIMAL | _LARGER
    unit, size = max(((unit, size) for unit, size in units.items() if value % size == 0), key=lambda found: found[1])
    return f"{int(value / size)}{unit}" if value else "0"


def _read(value: object, shape: re.Pattern[str], allowed: str) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not shape.fullmatch(text):
        raise refuse(allowed)
    return _canonical(text)


def _cpu(value: object) -> str:
    return _read(value, re.compile(_CPU), "an amount of processors such as 2, 0.5 or 500m")


def _memory(value: object) -> str:
    return _read(value, re.compile(_MEMORY), "an amount of memory such as 256Mi or 1Gi")


def _between(value: object, least: str, most: str) -> str:
    allowed = f"an amount of memory, {least} to {most}"
    quantity = _read(value, re.compile(_MEMORY), allowed)
    if not amount(least) <= amount(quantity) <= amount(most):
        raise refuse(allowed)
    return quantity


def _body_limit(value: object) -> str:
    return _between(value, *BODY_LIMITS)


def _window(value: object) -> str:
    return _between(value, *WINDOW_SIZES)


def _schema(pattern: str, most: int) -> WithJsonSchema:
    # The apiserver wants these very two variants; what they may be stands beside.
    either = [{"type": "integer"}, {"type": "string"}]
    bounds = {"minimum": 0, "maximum": most, "pattern": f"^{pattern}$"}
    return WithJsonSchema({"x-kubernetes-int-or-string": True, "anyOf": either, **bounds})


Cpu = Annotated[str, BeforeValidator(_cpu), _schema(_CPU, 10**6 - 1)]
Memory = Annotated[str, BeforeValidator(_memory), _schema(_MEMORY, 10**15 - 1)]
BodyLimit = Annotated[str, BeforeValidator(_body_limit), _schema(_MEMORY, 10**15 - 1)]
WindowSize = Annotated[str, BeforeValidator(_window), _schema(_MEMORY, 10**15 - 1)]
