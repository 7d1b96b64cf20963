"""The components of an InferenceService, and which of them get its requests."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

PREDICTOR, TRANSFORMER, EXPLAINER = "predictor", "transformer", "explainer"
COMPONENTS = (PREDICTOR, TRANSFORMER, EXPLAINER)
"""KServe gives each a host: that of a service of the name ``<name>-<component>``."""


class ActiveComponents(NamedTuple):
    """What gets the requests of an InferenceService: a fact that its objects of now do not tell.

    ``entry`` is the component that they enter at, ``predictor`` the Service of the predictor, which has another name
    after ``spec.predictor.name`` has changed. ``explainer`` is True if ``:explain`` goes to the explainer.
    """

    entry: str
    predictor: str
    explainer: bool = False


class Unknown(Enum):
    """Why it is not known what was active: nobody can have used the target before, or the program has just begun."""

    NEW = "new"
    RESTARTED = "restarted"


Before = ActiveComponents | Unknown
"""What was active at the last plan."""
