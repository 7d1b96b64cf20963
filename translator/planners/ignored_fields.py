"""Findings on what is written in KServe's and KubeDL's objects and has no effect.

That is what limits or moves traffic and cannot be done yet, and names that are no fields there, each with the field
that may be meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

from translator.objects.base import ClosedModel
from translator.objects.errors import path_of
from translator.objects.foreign_fields import (
    CANARY_PREDICTOR,
    COMPONENTS,
    INFERENCE,
    INFERENCE_SERVICE,
    MOST_NAMES,
    Level,
    Use,
)
from translator.objects.kserve import Canary, CanaryPredictor, Component, InferenceService
from translator.objects.kubedl import Inference
from translator.objects.ref import Origin, Ref
from translator.plan import Finding, Reason

_SIMILAR = 0.7  # `nodeName` is not what `name` means


NO_LIMIT = "has no effect: a limit on the requests that a pod has at once is not yet supported"


class _Part(NamedTuple):
    """A part of an object, and where it is."""

    path: str
    model: ClosedModel


def of_inference_service(service: InferenceService) -> list[Finding]:
    """What has no effect in the parts of an InferenceService."""
    if _is_plain(service):
        return []
    parts = list(_parts_of(service))
    return [*_of_components(service, parts), *_unknown(service.ref, parts)]


def _is_plain(service: InferenceService) -> bool:
    """Whether there is surely nothing to tell, as of nearly all: it is asked for each plan."""
    spec = service.spec
    if spec.unknown.number:
        return False
    for component in (spec.predictor, spec.transformer, spec.explainer):
        if component is not None and (component.unknown.number or component.container_concurrency):
            return False
    return all(_is_plain_canary(canary) for canary in spec.canary)


def _is_plain_canary(canary: Canary) -> bool:
    said = canary.predictor
    plain = said.timeout is None and said.canary_traffic_percent is None and not said.container_concurrency
    return plain and not (canary.unknown.number or said.unknown.number)


def of_inference(inference: Inference) -> list[Finding]:
    """What has no effect in an Inference."""
    predictors = enumerate(inference.spec.predictors)
    parts = (_Part(f"spec.predictors[{position}]", predictor) for position, predictor in predictors)
    return _unknown(inference.ref, (_Part("spec", inference.spec), *parts))


def _parts_of(service: InferenceService) -> Iterator[_Part]:
    spec = service.spec
    yield _Part("spec", spec)
    for name, component in (
        ("predictor", spec.predictor),
        ("transformer", spec.transformer),
        ("explainer", spec.explainer),
    ):
        if component is not None:
            yield _Part(f"spec.{name}", component)
    for position, canary in enumerate(spec.canary):
        yield _Part(f"spec.canary[{position}]", canary)
        yield _Part(f"spec.canary[{position}].predictor", canary.predictor)


def _of_components(service: InferenceService, parts: Iterable[_Part]) -> Iterator[Finding]:
    """Fields of components that decide about traffic, beside ``canaryTrafficPercent`` of those that are no canaries."""
    for path, part in parts:
        if isinstance(part, Component) and part.container_concurrency:  # 0 is no limit
            yield _finding(service.ref, f"{path}.containerConcurrency", NO_LIMIT)
        if not isinstance(part, CanaryPredictor):
            continue
        if part.canary_traffic_percent is not None:
            message = "has no effect: the trafficPercent beside the predictor is a canary's share"
            yield _finding(service.ref, f"{path}.canaryTrafficPercent", message)
        if part.timeout not in {None, service.spec.predictor.timeout}:
            message = "has no effect: requests have the timeout of spec.predictor, whichever variant serves them"
            yield _finding(service.ref, f"{path}.timeout", message)


def _unknown(ref: Ref, parts: Iterable[_Part]) -> list[Finding]:
    """At most ``MOST_NAMES``, and one that says how many there are."""
    found: list[Finding] = []
    number = 0
    for path, model in parts:
        number += model.unknown.number
        named = model.unknown.names[: MOST_NAMES - len(found)]
        found += [_finding(ref, path + _step(name), _message(model.LEVEL, name)) for name in named]
    if number > len(found):
        found.append(
            _finding(ref, "spec", f"has {number:,} unknown fields, which are not used; {len(found)} are named")
        )
    return found


def _step(name: str) -> str:
    part = path_of([name])
    return part if part.startswith("[") else f".{part}"


def _finding(ref: Ref, field: str, message: str) -> Finding:
    return Finding(Origin(ref, field), Reason.FIELD_IGNORED, message)


@lru_cache(maxsize=4096)
def _message(level: Level, name: str) -> str:
    advice = _advice(level, name)
    return f"is unknown to {level.version} here, so it is not used" + (f"; {advice}" if advice else "")


def _advice(level: Level, name: str) -> str | None:
    if meant := level.mistakes.get(name):
        return f"did you mean {meant}?"
    if home := _home(level, name):
        return f"it belongs in {home.path}"
    nearest = _nearest(level, name)
    return f"did you mean {nearest}?" if nearest else None


def _home(level: Level, name: str) -> Level | None:
    """Where a name is a field: below the level first, of other components only what is theirs alone."""
    levels = INFERENCE_SERVICE if level in INFERENCE_SERVICE else INFERENCE
    below = [each for each in levels if each.path.startswith(f"{level.path}.")]
    beside = [each for each in levels if each not in {*below, level, CANARY_PREDICTOR}]
    homes = [each for each in below if name in each.uses]
    homes += [each for each in beside if name in each.uses and (each not in COMPONENTS or _is_theirs(each, name))]
    return next(iter(homes), None)


def _is_theirs(level: Level, name: str) -> bool:
    return level.uses[name] is Use.MODEL


def _nearest(level: Level, name: str) -> str | None:
    """The field that is written most like it, in any case; None if none is like it."""
    fields = {known.lower(): known for known in level.uses}
    close = get_close_matches(name.lower(), fields, n=1, cutoff=_SIMILAR)
    return fields[close[0]] if close else None
