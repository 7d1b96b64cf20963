"""A Secret, where something names it. What it holds is shown nowhere."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from translator.objects.base import Foreign
from translator.objects.ref import CORE
from translator.objects.refusal import refuse

HIDDEN = "a hidden value"


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise refuse("base64", HIDDEN) from None


class Secret(Foreign):
    """``v1`` Secret; its data are decoded, and neither shown by ``repr`` nor told in errors.

    It is none of the kinds that are read: a Secret is asked for by name, and never found in a directory.
    """

    GROUP: ClassVar[str] = CORE
    VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Secret"

    type: str = "Opaque"
    data: Annotated[Mapping[str, Annotated[bytes, BeforeValidator(_decoded)]], Field(repr=False)] = {}
