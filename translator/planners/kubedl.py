"""KubeDL's Inference: one Service a predictor, traffic by weight."""

from __future__ import annotations

from translator.objects.kubedl import Inference
from translator.objects.ref import Origin
from translator.planners import hosts, ignored_fields
from translator.planners.endpoints import PortOf
from translator.planners.naming import naming
from translator.planners.options import Options
from translator.planners.target import Candidate, Target, Weighted
from translator.view import View

HTTP_PORT = 8080
"""KubeDL gives every Service the ports ``http`` 8080 and ``grpc`` 9000."""

DEFAULT_WEIGHT = 100
"""What KubeDL counts for a predictor without ``trafficWeight``; one predictor alone gets all."""


def target(view: View, inference: Inference, options: Options) -> Target:
    """What an Inference asks for by its own fields."""
    predictors = inference.spec.predictors
    return Target(
        ref=inference.ref,
        candidates={
            predictor.name: Candidate(
                predictor.name,
                PortOf(inference.ref.namespace, f"{inference.ref.name}-{predictor.name}", HTTP_PORT),
                Origin(inference.ref, f"spec.predictors[{position}]"),
            )
            for position, predictor in enumerate(predictors)
        },
        entry="",
        split=_split(inference),
        split_origin=Origin(inference.ref, "spec.predictors"),
        addresses=hosts.addresses(naming(view, options), inference.ref, options),
        findings=tuple(ignored_fields.of_inference(inference)),
    )


def entry(inference: Inference, name: str, origin: Origin) -> Candidate:
    """The Inference as a backend of another service: the Service over the pods of all its predictors."""
    return Candidate(name, PortOf(inference.ref.namespace, inference.ref.name, HTTP_PORT), origin)


def _split(inference: Inference) -> tuple[Weighted, ...]:
    predictors = inference.spec.predictors
    if len(predictors) == 1:
        return (Weighted(predictors[0].name, DEFAULT_WEIGHT),)
    return tuple(
        Weighted(found.name, DEFAULT_WEIGHT if found.traffic_weight is None else found.traffic_weight)
        for found in predictors
    )
