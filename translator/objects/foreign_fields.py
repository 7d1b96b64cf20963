"""The fields of KServe's and KubeDL's objects at the levels that are read, and what each is to xdserve.

The definitions (CRDs) of both projects close these levels. So a name that is in none of these tables is misspelt,
misplaced, or of another version. The tables are the one list of fields: what is unknown is told by it, and the
document of the fields is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from heapq import nsmallest
from typing import NamedTuple

KSERVE_VERSION = "KServe 0.20"
KUBEDL_VERSION = "KubeDL of March 2024"

MOST_NAMES = 16
"""How many unknown names of a level are kept."""

LONGEST_NAME = 100
"""How many characters of an unknown name are kept, more than a path shows."""


class Use(Enum):
    """What a field is to xdserve; the value says it to the reader of the documents."""

    READ = "read"
    IGNORED = "has no effect: a finding `FieldIgnored` says so where it is set"
    MODEL = "not read: what runs in the pods. Gateways go by the ports of the Service that KServe or KubeDL makes of it"
    POD = "not read: how and where the pods run"
    SCALING = "not read: how many pods there are. Gateways follow the EndpointSlices"
    AGENT = "not read: KServe's agent in the pod does it"


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The fields of one level; ``mistakes`` are names that people write, and the field that they mean."""

    path: str
    version: str
    uses: Mapping[str, Use]
    mistakes: Mapping[str, str] = field(default_factory=dict)


class Unknown(NamedTuple):
    """Names at one level that are no fields: the first ones, each cut to what can be shown, and how many there are."""

    names: tuple[str, ...] = ()
    number: int = 0


def unknown(names: Iterable[object], level: Level) -> Unknown:
    """Those of the names that are no fields of a level."""
    found = [name for name in names if isinstance(name, str) and name not in level.uses]
    return Unknown(tuple(name[:LONGEST_NAME] for name in nsmallest(MOST_NAMES, found)), len(found))


def _all(use: Use, names: str) -> dict[str, Use]:
    return dict.fromkeys(names.split(), use)


_OF_PODS = _all(
    Use.POD,
    """
    activeDeadlineSeconds affinity annotations automountServiceAccountToken deploymentStrategy dnsConfig dnsPolicy
    enableServiceLinks hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets
    labels nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims
    resources restartPolicy runtimeClassName schedulerName schedulingGates securityContext serviceAccount
    serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations
    topologySpreadConstraints volumes
    """,
)
_OF_EVERY_COMPONENT = {
    "timeout": Use.READ,
    **_all(Use.IGNORED, "canaryTrafficPercent containerConcurrency"),
    **_all(Use.MODEL, "containers initContainers storageUris"),
    **_all(Use.SCALING, "autoScaling maxReplicas minReplicas scaleMetric scaleMetricType scaleTarget"),
    **_all(Use.AGENT, "batcher logger"),
    **_OF_PODS,
}
_OF_PREDICTORS = {
    "name": Use.READ,
    **_OF_EVERY_COMPONENT,
    **_all(
        Use.MODEL,
        """
        huggingface lightgbm model onnx paddle pmml pytorch sklearn storageContainerName tensorflow triton workerSpec
        xgboost
        """,
    ),
}

_TIMEOUTS = dict.fromkeys(("timeoutSeconds", "timeouts", "requestTimeout"), "timeout")
_SHARES = ("canaryTrafficPercent", "percent", "traffic", "trafficPercentage", "trafficWeight", "weight")

SPEC = Level(
    "spec",
    KSERVE_VERSION,
    _all(Use.READ, "predictor transformer explainer canary"),
    {"default": "predictor", "canaries": "canary"},
)
PREDICTOR = Level("spec.predictor", KSERVE_VERSION, _OF_PREDICTORS, _TIMEOUTS)
TRANSFORMER = Level("spec.transformer", KSERVE_VERSION, _OF_EVERY_COMPONENT, _TIMEOUTS)
EXPLAINER = Level("spec.explainer", KSERVE_VERSION, {**_OF_EVERY_COMPONENT, "art": Use.MODEL}, _TIMEOUTS)
CANARY = Level(
    "spec.canary[]",
    KSERVE_VERSION,
    _all(Use.READ, "predictor trafficPercent"),
    dict.fromkeys(_SHARES, "trafficPercent"),
)
CANARY_PREDICTOR = Level(
    "spec.canary[].predictor",
    KSERVE_VERSION,
    {**_OF_PREDICTORS, "ephemeralContainers": Use.MODEL, "timeout": Use.IGNORED},
    _TIMEOUTS,
)
INFERENCE_SPEC = Level(
    "spec", KUBEDL_VERSION, {"framework": Use.MODEL, "predictors": Use.READ}, {"predictor": "predictors"}
)
INFERENCE_PREDICTOR = Level(
    "spec.predictors[]",
    KUBEDL_VERSION,
    {
        **_all(Use.READ, "name trafficWeight"),
        **_all(Use.MODEL, "batching modelPath modelVersion template"),
        **_all(Use.SCALING, "autoScale replicas"),
    },
    dict.fromkeys((*_SHARES, "trafficPercent"), "trafficWeight"),
)

COMPONENTS = (PREDICTOR, TRANSFORMER, EXPLAINER)
"""The levels that are alike but for what can run there."""

INFERENCE_SERVICE = (SPEC, *COMPONENTS, CANARY, CANARY_PREDICTOR)
"""The levels of KServe's InferenceService."""

INFERENCE = (INFERENCE_SPEC, INFERENCE_PREDICTOR)
"""The levels of KubeDL's Inference."""
