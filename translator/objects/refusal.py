"""How a validator refuses a value, in words of its own instead of pydantic's."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

REFUSED = "refused"  # the type of the errors that carry their own words


class Refusal(NamedTuple):
    """A field below the one under validation (its location by aliases), its value, and what is allowed.

    ``found`` is what a message shows of a value that must not or cannot be shown as it is.
    """

    loc: tuple[str | int, ...]
    value: object
    allowed: str
    found: str | None = None


def refuse(allowed: str, found: str | None = None) -> PydanticCustomError:
    """An error for a validator to raise about the value that it was given."""
    return PydanticCustomError(REFUSED, "{allowed}", {"allowed": allowed, "found": found})


def refuse_at(*refusals: Refusal) -> NoReturn:
    """Refuse fields below the one that is under validation."""
    raise refusals_of("object", refusals)


def refusals_of(title: str, refusals: tuple[Refusal, ...] | list[Refusal]) -> ValidationError:
    """One error for all of them."""
    lines: list[InitErrorDetails] = [
        {"type": refuse(each.allowed, each.found), "loc": each.loc, "input": each.value} for each in refusals
    ]
    return ValidationError.from_exception_data(title, lines)


def says(allowed: str) -> WrapValidator:
    """Whatever is wrong with a value, its author reads these words. Stands last in an ``Annotated``."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            raise refuse(allowed) from None

    return WrapValidator(check)
