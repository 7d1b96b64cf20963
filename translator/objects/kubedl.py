"""KubeDL's Inference, as far as it says who gets the requests."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from translator.objects import foreign_fields
from translator.objects.base import ClosedModel, Foreign, Many
from translator.objects.fields import DnsLabel
from translator.objects.foreign_fields import Level
from translator.objects.ref import KUBEDL
from translator.objects.refusal import refuse


class Predictor(ClosedModel):
    """One variant; ``traffic_weight`` is relative to its siblings', None counts 100."""

    LEVEL: ClassVar[Level] = foreign_fields.INFERENCE_PREDICTOR

    name: DnsLabel
    traffic_weight: Annotated[int, Field(ge=0)] | None = None


def _each_once(predictors: tuple[Predictor, ...]) -> tuple[Predictor, ...]:
    names = [predictor.name for predictor in predictors]
    if len(set(names)) < len(names):
        raise refuse("each name once", "a name twice")
    return predictors


class InferenceSpec(ClosedModel):
    """Without predictors there is nothing to send to."""

    LEVEL: ClassVar[Level] = foreign_fields.INFERENCE_SPEC

    predictors: Annotated[Many[Predictor], AfterValidator(_each_once)] = ()


class Inference(Foreign):
    """``serving.kubedl.io/v1alpha1`` Inference."""

    GROUP: ClassVar[str] = KUBEDL
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "Inference"

    spec: InferenceSpec
