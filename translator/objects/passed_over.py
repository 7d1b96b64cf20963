"""Kinds that are not read though they say something about traffic: what to do instead.

Kinds that say nothing about it (a Deployment, a ServingRuntime) are passed over without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from translator.objects.ref import CORE, KSERVE

KFSERVING = "serving.kubeflow.org"
"""The group of InferenceServices before KFServing became KServe."""


class Note(NamedTuple):
    """Why an object is not read, at the field that says its kind. Nothing of the object is in the text."""

    field: str
    message: str


KINDS: Mapping[tuple[str, str], Note] = {
    (KSERVE, "InferenceGraph"): Note(
        "kind", "InferenceGraph is not yet supported and not read; shares of traffic can be given by a TrafficPolicy"
    ),
    (KSERVE, "LLMInferenceService"): Note(
        "kind",
        "LLMInferenceService is not yet supported and not read; a model of an InferenceService has a gateway",
    ),
    (CORE, "Endpoints"): Note(
        "kind", "Endpoints are not read; EndpointSlices are, which a cluster makes of them by itself"
    ),
}

OLD_GROUP = Note("apiVersion", f"{KFSERVING} is not read; InferenceServices are of {KSERVE}/v1beta1 now")


def passed_over(document: object) -> Note | None:
    """What to say of a document of a kind that is not read; None if there is nothing to say."""
    if not isinstance(document, Mapping):
        return None
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return None
    group = api_version.rpartition("/")[0]
    return OLD_GROUP if group == KFSERVING else KINDS.get((group, kind.removesuffix("List")))
