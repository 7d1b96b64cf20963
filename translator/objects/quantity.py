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

from pydantic import BeforeValidator, Field, WithJsonSchema

from translator.objects.refusal import refuse, says

_CPU = r"([0-9]{1,6}(\.[0-9]{1,3})?|[0-9]{1,9}m)"
_MEMORY = r"([0-9]{1,15}|[0-9]{1,9}(k|M|G|Ki|Mi|Gi))"

_MEBIBYTES = r"([1-9][0-9]{0,2}|10[01][0-9]|102[0-4])Mi|1Gi"
_KIBIBYTES = r"(6[4-9]|[7-9][0-9]|[1-9][0-9]{2,5})Ki"

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


def _schema(pattern: str, most: int) -> WithJsonSchema:
    # The apiserver wants these very two variants; what they may be stands beside.
    either = [{"type": "integer"}, {"type": "string"}]
    bounds = {"minimum": 0, "maximum": most, "pattern": f"^{pattern}$"}
    return WithJsonSchema({"x-kubernetes-int-or-string": True, "anyOf": either, **bounds})


Cpu = Annotated[str, BeforeValidator(_cpu), _schema(_CPU, 10**6 - 1)]
Memory = Annotated[str, BeforeValidator(_memory), _schema(_MEMORY, 10**15 - 1)]
# Bounds by pattern alone, which an apiserver checks too. Over HTTP/2 a body limit below the default stream window of
# 1Mi would not hold: Envoy takes in a whole window. Of windows Envoy takes 65,535 bytes to 2 GiB.
BodyLimit = Annotated[str, Field(pattern=f"^({_MEBIBYTES})$"), says("1Mi to 1Gi, in whole Mi or Gi")]
WindowSize = Annotated[str, Field(pattern=f"^({_KIBIBYTES}|{_MEBIBYTES})$"), says("64Ki to 1Gi, in whole Ki, Mi or Gi")]
