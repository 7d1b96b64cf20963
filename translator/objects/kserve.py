"""KServe's InferenceService, as far as it says who gets the requests."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from translator.objects import foreign_fields
from translator.objects.base import ClosedModel, Foreign, Many, Model
from translator.objects.fields import DnsLabel
from translator.objects.foreign_fields import Level
from translator.objects.ref import KSERVE
from translator.objects.refusal import refuse, says

STOP_ANNOTATION = "serving.kserve.io/stop"
MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
AUTH_ANNOTATION = "security.opendatahub.io/enable-auth"
VISIBILITY_LABEL = "networking.kserve.io/visibility"

# KServe renamed its modes in 0.16; its webhook rewrites the old names, a file may still have them.
_MODES = {"RawDeployment": "Standard", "Serverless": "Knative"}


def _or_none(value: object) -> object:
    return None if value == "" else value


_INT32 = 2**31 - 1

OptionalName = Annotated[DnsLabel | None, BeforeValidator(_or_none)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Percent = Annotated[int, Field(ge=0, le=100), says("0..100")]


class Component(ClosedModel):
    """A predictor, transformer or explainer. ``timeout`` is in seconds, ``container_concurrency`` per pod."""

    timeout: Seconds | None = None
    container_concurrency: Annotated[int, Field(ge=0, le=_INT32)] | None = None
    canary_traffic_percent: Percent | None = None


class Predictor(Component):
    """The stable predictor."""

    LEVEL: ClassVar[Level] = foreign_fields.PREDICTOR

    name: OptionalName = None


class Transformer(Component):
    """What requests enter by where there is one; it calls the predictor."""

    LEVEL: ClassVar[Level] = foreign_fields.TRANSFORMER


class Explainer(Component):
    """What ``:explain`` enters by."""

    LEVEL: ClassVar[Level] = foreign_fields.EXPLAINER


class CanaryPredictor(Component):
    """What a canary does not say it takes from the stable predictor; its name is its identity."""

    LEVEL: ClassVar[Level] = foreign_fields.CANARY_PREDICTOR

    name: DnsLabel


class Canary(ClosedModel):
    """A named variant beside the stable predictor (Standard mode)."""

    LEVEL: ClassVar[Level] = foreign_fields.CANARY

    traffic_percent: Percent
    predictor: CanaryPredictor


def _canaries(canaries: tuple[Canary, ...]) -> tuple[Canary, ...]:
    total = sum(canary.traffic_percent for canary in canaries)
    if total > 100:
        raise refuse("a sum of trafficPercent up to 100", f"a sum of {total}")
    names = [canary.predictor.name for canary in canaries]
    if len(set(names)) < len(names):
        raise refuse("each predictor.name once", "a name twice")
    return canaries


class InferenceServiceSpec(ClosedModel):
    """``canary`` gives shares to variants, the rest is the stable predictor's."""

    LEVEL: ClassVar[Level] = foreign_fields.SPEC

    predictor: Predictor
    transformer: Transformer | None = None
    explainer: Explainer | None = None
    canary: Annotated[Many[Canary], AfterValidator(_canaries)] = ()


class CanaryStatus(Model):
    """What KServe's controller says of one canary."""

    name: str = ""
    ready: bool = False
    traffic_percent: int | None = None


_READY = {"TransformerReady": "transformer", "ExplainerReady": "explainer"}


def _ready_components(conditions: object) -> frozenset[str]:
    """What else conditions say makes no difference, nor does a form that KServe never writes."""
    listed = conditions if isinstance(conditions, list | tuple) else ()
    true = [one.get("type") for one in listed if isinstance(one, dict) and one.get("status") == "True"]
    return frozenset(component for said, component in _READY.items() if said in true)


class InferenceServiceStatus(Model):
    """The part of the status that decides about traffic.

    ``ready_components`` are the transformer and the explainer, if they are ready by their conditions.
    """

    canary_statuses: Many[CanaryStatus] = ()
    deployment_mode: str | None = None
    ready_components: Annotated[frozenset[str], BeforeValidator(_ready_components), Field(alias="conditions")] = (
        frozenset()
    )


class InferenceService(Foreign):
    """``serving.kserve.io/v1beta1`` InferenceService."""

    GROUP: ClassVar[str] = KSERVE
    VERSION: ClassVar[str] = "v1beta1"
    KIND: ClassVar[str] = "InferenceService"

    spec: InferenceServiceSpec
    status: InferenceServiceStatus = InferenceServiceStatus()

    @property
    def stopped(self) -> bool:
        """Whether its owner has stopped it: KServe then removes Deployments and Services."""
        return self.metadata.annotations.get(STOP_ANNOTATION, "").lower() == "true"

    @property
    def authenticated(self) -> bool:
        """Whether Open Data Hub puts a proxy before each pod that asks who calls: it is reached by TLS."""
        return self.metadata.annotations.get(AUTH_ANNOTATION, "").lower() == "true"

    @property
    def cluster_local(self) -> bool:
        """Whether it is to be reached by its in-cluster names alone."""
        return self.metadata.labels.get(VISIBILITY_LABEL) == "cluster-local"

    @property
    def deployment_mode(self) -> str | None:
        """``Standard``, ``Knative`` or ``ModelMesh``; None if nothing says it.

        What KServe's controller has decided counts before the annotation, as it does for KServe: it is in the status
        alone where the mode is the cluster's default.
        """
        mode = self.status.deployment_mode or self.metadata.annotations.get(MODE_ANNOTATION)
        return _MODES.get(mode, mode) if mode else None
