"""KubeDL's Inference, as far as it says who gets the requests."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from translator.objects.base import Foreign, Many, Model
from translator.objects.ref import KUBEDL


class Predictor(Model):
    """One variant; ``traffic_weight`` is relative to its siblings', None counts 100."""

    name: Annotated[str, Field(min_length=1)]
    traffic_weight: Annotated[int, Field(ge=0)] | None = None


class InferenceSpec(Model):
    """``framework`` is ``TFServing`` or ``Triton``."""

    framework: str | None = None
    predictors: Many[Predictor] = ()


class Inference(Foreign):
    """``serving.kubedl.io/v1alpha1`` Inference."""

    GROUP: ClassVar[str] = KUBEDL
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "Inference"

    spec: InferenceSpec
