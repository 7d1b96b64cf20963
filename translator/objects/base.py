"""What all models share: how fields are named, what a null means, and how pydantic's errors become problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SkipValidation,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from translator.objects.errors import NOT_YET, Problem, one_line, path_of, show
from translator.objects.foreign_fields import Level, Unknown, unknown
from translator.objects.meta import ObjectMeta
from translator.objects.ref import Ref
from translator.objects.refusal import REFUSED, Refusal, refusals_of

T = TypeVar("T")

# Strict models want a tuple where YAML and JSON have lists; what is in the list stays strict.
Many = Annotated[tuple[T, ...], Field(strict=False)]


class Model(BaseModel):
    """Part of an object of another project: what is not used here is not read, and null means absent."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: object) -> object:
        return without_nulls(value)


_UNKNOWN = "unknown fields"  # no name of a document is looked up by it: one that is written so is unknown itself


class ClosedModel(Model):
    """Part of an object of another project whose fields are all known: ``unknown`` are names that are none of them."""

    LEVEL: ClassVar[Level]
    unknown: Annotated[Unknown, SkipValidation, Field(alias=_UNKNOWN)] = Unknown()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: object) -> object:
        kept = without_nulls(value)
        if isinstance(kept, dict) and not kept.keys() <= cls.LEVEL.uses.keys():
            kept[_UNKNOWN] = unknown(kept, cls.LEVEL)
        return kept


class OurModel(BaseModel):
    """Part of one of xdserve's own objects: a field that nobody reads is refused, never ignored.

    ``NOT_YET_FIELDS`` and ``NOT_YET_VALUES`` name what is documented and not built: building one is deleting
    its word here.
    """

    # What stands below a field says to its users what it means: the reference document is made of it.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", alias_generator=to_camel, use_attribute_docstrings=True
    )

    NOT_YET_FIELDS: ClassVar[frozenset[str]] = frozenset()
    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {}
    _UNREAD: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(without_nulls(value, cls._UNREAD))
        except ValidationError as error:
            raise _explained(cls, error) from None


class _Identified:
    """What every object has: its metadata and the reference that it is known by."""

    GROUP: ClassVar[str]
    VERSION: ClassVar[str]
    KIND: ClassVar[str]
    metadata: ObjectMeta

    @cached_property
    def ref(self) -> Ref:
        """Who this object is."""
        return Ref(self.GROUP, self.KIND, self.metadata.namespace, self.metadata.name)


class Foreign(_Identified, Model):
    """An object of another project."""

    metadata: ObjectMeta


class Ours(_Identified, OurModel):
    """An object of xdserve.io; its status is written by xdserve and never read back."""

    _UNREAD: ClassVar[frozenset[str]] = frozenset({"apiVersion", "kind", "status"})
    metadata: ObjectMeta


def without_nulls(value: object, unread: frozenset[str] = frozenset()) -> object:
    """A map without its null values, which Kubernetes drops too; anything else as it is."""
    if not isinstance(value, dict):
        return value
    return {key: item for key, item in value.items() if item is not None and key not in unread}


def _explained(model: type[OurModel], error: ValidationError) -> ValidationError:
    """The same error, its lines about this model's own fields in xdserve's words."""
    return refusals_of(error.title, [_explain(model, line) for line in error.errors(include_url=False)])


def _explain(model: type[OurModel], line: ErrorDetails) -> Refusal:
    """Errors of a deeper model have a longer location and have been put into words there."""
    loc, value, context = line["loc"], line["input"], line.get("ctx", {})
    allowed, found = allowed_of(line), context.get("found")
    if len(loc) == 1:
        field = str(loc[0])
        if line["type"].startswith("union_tag"):
            tag = str(context["discriminator"]).strip("'")
            loc, value = (field, tag), value.get(tag)
        elif line["type"] == "extra_forbidden":
            allowed, found = _instead_of(model, field)
        if _is_not_yet(model, field, value):
            allowed = NOT_YET
    return Refusal(loc, value, allowed, found)


def _instead_of(model: type[OurModel], unknown: str) -> tuple[str, str]:
    """What is allowed in place of an unknown field, and how it is called: its value is nobody's business."""
    if unknown in model.NOT_YET_FIELDS:
        return NOT_YET, "this field"
    return ", ".join(field.alias or name for name, field in model.model_fields.items()), "an unknown field"


def _is_not_yet(model: type[OurModel], field: str, value: object) -> bool:
    return isinstance(value, str) and value in model.NOT_YET_VALUES.get(field, frozenset())


# pydantic's error types, and what each says is allowed. {} is filled from the error's own context.
_WORDS = {
    "missing": "a value",
    "string_type": "a string",
    "string_unicode": "a string of valid Unicode",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "what matches {pattern}",
    "int_type": "a whole number",
    "int_parsing_size": "a smaller number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "dict_type": "a map",
    "dataclass_type": "a map",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "union_tag_not_found": "a value",
    REFUSED: "{allowed}",
}


def allowed_of(line: ErrorDetails) -> str:
    """What the field of an error may be."""
    words = _WORDS.get(line["type"])
    if words is None:
        return line["msg"]
    context = line.get("ctx", {})
    words = words.format(**context)
    return words if line["type"] == REFUSED else words.replace("'", "")


_TEMPLATE_TAGS = ("{{", "{%")  # of Helm and Jinja
_LONGEST_SEARCHED = 1_000


def problems_of(error: ValidationError, document: object) -> tuple[Problem, ...]:
    """All errors about a document, each with the path as the document has it."""
    return tuple(_problem(line, document) for line in error.errors(include_url=False))


def _problem(line: ErrorDetails, document: object) -> Problem:
    allowed = allowed_of(line)
    missing = allowed == _WORDS["missing"]
    found = line.get("ctx", {}).get("found") or ("nothing" if missing else show(line["input"]))
    if isinstance(line["input"], str) and any(tag in line["input"][:_LONGEST_SEARCHED] for tag in _TEMPLATE_TAGS):
        allowed += "; render the template first"
    return Problem(path_of(_as_written(line["loc"], document)) or "document", found, one_line(allowed))


def _as_written(loc: Sequence[str | int], document: object) -> list[str | int]:
    """The location without what pydantic puts into it for the members of a union."""
    kept: list[str | int] = []
    value = document
    for index, part in enumerate(loc):
        inside, value = _step(value, part)
        if inside or (index == len(loc) - 1 and part != "[key]"):
            kept.append(part)
    return kept


def _step(value: object, part: str | int) -> tuple[bool, object]:
    if isinstance(value, Mapping) and part in value:
        return True, value[part]
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return True, value[part]
    return False, value
