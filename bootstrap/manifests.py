"""The Kubernetes objects of a dedicated gateway: a stock Envoy a pod, and beside it the router that a policy asks for.

A pure function of the target, its plan and the operator's settings; of a policy nothing but its router is in them. Why
each is as it is: docs/gateways.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from bootstrap import router
from bootstrap.address import Address
from bootstrap.credentials import Credentials
from bootstrap.envoy import DEFAULT_ADMIN, render, secrets, to_json
from bootstrap.pod import DRAIN, DRAIN_HEADER, LIVE, PROBE_PORT, READY, ROUTER, Pod, free_port, in_pod
from translator import names
from translator.objects.ref import Ref
from translator.plan import GatewayPlan

Manifest: TypeAlias = dict[str, Any]

AUDIENCE = "xdserve"
"""Whom the pods' tokens are for: such a token opens nothing else."""

IMAGE = "envoyproxy/envoy:v1.40.0"
MANAGER = "xdserve"
ENTRANCE_PORT = 80
CONTAINER = "envoy"
HASH = "xdserve.io/bootstrap"
"""Annotation of the pods: what their bootstrap is. Another one makes other pods."""
CONTENT = "xdserve.io/content"
"""Annotation of each object: what was applied; tells what a newer xdserve would make differently."""
CONFIG_CONTENT = "xdserve.io/config"
"""Annotation of the Deployment: the content of its ConfigMap, which is applied before and need not be read to know."""

CONFIG = PurePosixPath("/etc/xdserve")
TOKENS = PurePosixPath("/var/run/secrets/xdserve")
BOOTSTRAP_FILE, CA_FILE, TOKEN_FILE = "envoy.json", "ca.crt", "token"

_ENVOY_USER = 101  # `envoy` in the stock image
_MIN_GRACE = 15
_MARGIN = 10
"""Seconds of the grace period that are left to Envoy when draining has ended."""

RESOURCES: Mapping[str, Mapping[str, str]] = {
    # A stock Envoy holds 72 MB when it serves. CPU has no limit: that would only make answers late.
    "requests": {"cpu": "50m", "memory": "96Mi"},
    "limits": {"memory": "512Mi"},
}


class Unreachable(ValueError):
    """A gateway whose pods nobody could reach; the text is one line for its owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploying:
    """What the operator decides for all gateways.

    Args:
        xds_address: where gateways reach xdserve: a name in its certificate, and the port.
        ca: authorities of xdserve's certificate (PEM). To change them rolls no pod.
        image: a stock Envoy.
        router_image: xdserve's own, for the router.
        release: whose gateways these are: two installations must not sweep each other's.
        replicas: pods of each gateway, unless its ServiceGateway says it.
        resources: of each Envoy, unless its ServiceGateway says it.
        pull_secrets: names of Secrets to pull the images with, which are in the namespace of each gateway.
        grace: seconds that a pod may take to end: the longest that a running stream is waited for.

    Raises:
        ValueError: fewer than one replica, or a grace period too short to drain in.
    """

    xds_address: Address
    ca: str
    image: str = IMAGE
    router_image: str = router.IMAGE
    release: str = "xdserve"
    replicas: int = 2
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: RESOURCES)
    pull_secrets: tuple[str, ...] = ()
    grace: int = 60

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError("replicas: 1 or more")
        if self.grace < _MIN_GRACE:
            raise ValueError(f"grace: {_MIN_GRACE} seconds or more")


@dataclass(frozen=True, slots=True)
class Owner:
    """The object that a gateway is of: what is made here goes when it goes."""

    ref: Ref
    version: str
    uid: str


def manifests(owner: Owner, gateway: GatewayPlan, deploying: Deploying) -> tuple[Manifest, ...]:
    """All objects of a gateway, in the order in which they are best made; each whole, for server-side apply.

    Raises:
        Unreachable: nobody could reach its pods.
    """
    if ip_address(gateway.address).is_loopback:
        raise Unreachable(
            f"{gateway.origin.object}: spec.address: found {gateway.address}, allowed others than loopback: "
            "nobody would reach the gateway's pods; leave it out"
        )
    made = _Gateway(owner, gateway, deploying)
    pod = made.pod()
    disruptions = () if made.replicas == 1 else (made.disruptions(),)
    return made.account(), made.config(), made.service(), *disruptions, made.deployment(pod)


def labels(owner: Ref, release: str) -> dict[str, str]:
    """The recommended labels; the first two find the pods and never change."""
    return selector(owner) | {
        "app.kubernetes.io/component": "gateway",
        "app.kubernetes.io/part-of": release,
        "app.kubernetes.io/managed-by": MANAGER,
    }


def selector(owner: Ref) -> dict[str, str]:
    """What finds the pods of a gateway."""
    return {"app.kubernetes.io/name": "xdserve-gateway", "app.kubernetes.io/instance": names.entrance(owner)}


def owned(release: str) -> str:
    """The label selector of all that an installation has made."""
    wanted = {"component": "gateway", "part-of": release, "managed-by": MANAGER}
    return ",".join(f"app.kubernetes.io/{name}={value}" for name, value in wanted.items())


class _Gateway:
    """One gateway's objects."""

    def __init__(self, owner: Owner, gateway: GatewayPlan, deploying: Deploying) -> None:
        self._owner = owner
        self._gateway = gateway
        self._deploying = deploying
        self._pods = gateway.pods
        self.replicas = gateway.pods.replicas or deploying.replicas
        self._probe_port = free_port(PROBE_PORT, gateway.port)
        self._files = self._bootstrap_files()

    def account(self) -> Manifest:
        # Its default token would open the apiserver; the pods have one that opens xdserve alone.
        return self._object("v1", "ServiceAccount", automountServiceAccountToken=False)

    def config(self) -> Manifest:
        return self._object("v1", "ConfigMap", data=self._files | {CA_FILE: self._deploying.ca})

    def service(self) -> Manifest:
        # By number: a changed port is in force at once in running pods, whose manifest does not name it.
        port = {"name": "http", "port": ENTRANCE_PORT, "targetPort": self._gateway.port, "protocol": "TCP"}
        spec = {"type": "ClusterIP", "selector": selector(self._owner.ref), "ports": [port]}
        return self._object("v1", "Service", spec=spec | self._families())

    def _families(self) -> Manifest:
        """Only where they are not the cluster's own: the primary family of a Service that is there never changes."""
        said = self._pods.families
        if said is None:
            return {}
        policy = {"ipFamilyPolicy": said.policy} if said.policy else {}
        return {"ipFamilies": list(said.families), **policy}

    def disruptions(self) -> Manifest:
        spec = {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(self._owner.ref)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }
        return self._object("policy/v1", "PodDisruptionBudget", spec=spec)

    def deployment(self, pod: Manifest) -> Manifest:
        rolling = {"maxUnavailable": 0, "maxSurge": 1}
        spec = {
            "replicas": self.replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": selector(self._owner.ref)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "template": {
                "metadata": {"labels": self._labels(), "annotations": {HASH: self._hash()}},
                "spec": pod,
            },
        }
        made = self._object("apps/v1", "Deployment", spec=spec)
        annotations = made["metadata"]["annotations"]
        annotations[CONFIG_CONTENT] = self.config()["metadata"]["annotations"][CONTENT]
        return made

    def pod(self) -> Manifest:
        pull = [{"name": name} for name in self._deploying.pull_secrets]
        return {
            "serviceAccountName": names.entrance(self._owner.ref),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": self._deploying.grace,
            "securityContext": _POD_SECURITY,
            **({"imagePullSecrets": pull} if pull else {}),
            "topologySpreadConstraints": [
                self._spread("kubernetes.io/hostname"),
                self._spread("topology.kubernetes.io/zone"),
            ],
            "containers": [self._container(), *self._router()],
            "volumes": [
                {"name": "config", "configMap": {"name": names.entrance(self._owner.ref)}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": _TOKEN}]}},
            ],
        }

    def _container(self) -> Manifest:
        return {
            "name": CONTAINER,
            "image": self._deploying.image,
            "command": ["envoy"],  # the image's own entry is a script, which not every stock image has
            "args": self._arguments(),
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": self._resources(),
            "securityContext": _confined(),
            # A pod waits for its first configuration as long as it takes; to restart it would bring none.
            "startupProbe": self._probe(LIVE, period=1, failures=86_400),
            "readinessProbe": self._probe(READY, period=5, failures=2),
            "livenessProbe": self._probe(LIVE, period=10, failures=6),
            "lifecycle": {"preStop": {"httpGet": self._drain()}},
            "volumeMounts": [
                {"name": "config", "mountPath": str(CONFIG), "readOnly": True},
                {"name": "token", "mountPath": str(TOKENS), "readOnly": True},
            ],
        }

    def _router(self) -> list[Manifest]:
        """The router's container, if a policy asks for one.

        It has no liveness probe: whom that kills it drains first, and that would be the Envoy. It ends when Envoy has
        drained, since requests come until then.
        """
        asked = self._pods.router
        if asked is None:
            return []
        made = router.container(asked, self._gateway, self._deploying.router_image)
        return [
            made
            | {
                "securityContext": _confined(),
                "readinessProbe": self._probe(ROUTER, period=5, failures=3),
                "lifecycle": {"preStop": {"httpGet": self._drain()}},
            }
        ]

    def _resources(self) -> Manifest:
        said = self._pods.resources
        if said is None:
            return {kind: dict(amounts) for kind, amounts in self._deploying.resources.items()}
        both = {"requests": said.requests, "limits": said.limits}
        return {kind: dict(amounts) for kind, amounts in both.items() if amounts}  # the apiserver drops what is empty

    def _arguments(self) -> list[str]:
        return [
            *("--config-path", str(CONFIG / BOOTSTRAP_FILE)),
            *("--service-node", f"{self._gateway.name}/$(POD_NAME)"),
            *("--concurrency", "1"),
            *("--log-level", "warning"),
            *("--drain-time-s", str(self._deploying.grace)),
            "--disable-hot-restart",
        ]

    def _probe(self, path: str, *, period: int, failures: int) -> Manifest:
        return {
            "httpGet": {"path": path, "port": self._probe_port, "scheme": "HTTP"},
            "periodSeconds": period,
            "failureThreshold": failures,
            "timeoutSeconds": 3,
        }

    def _drain(self) -> Manifest:
        header = {"name": DRAIN_HEADER, "value": self._key()}
        return {"path": DRAIN, "port": self._probe_port, "scheme": "HTTP", "httpHeaders": [header]}

    def _spread(self, topology: str) -> Manifest:
        return {
            "maxSkew": 1,
            "topologyKey": topology,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(self._owner.ref)},
        }

    def _bootstrap_files(self) -> dict[str, str]:
        """What is in the ConfigMap beside the authorities: what an Envoy reads when it starts, and never again."""
        address = self._deploying.xds_address
        credentials = Credentials(ca=CONFIG / CA_FILE, token_file=TOKENS / TOKEN_FILE, directory=CONFIG)
        admin = Address(DEFAULT_ADMIN.host, free_port(DEFAULT_ADMIN.port, self._gateway.port))
        pod = Pod(
            address=Address("::" if ":" in self._gateway.address else "0.0.0.0", self._probe_port),  # noqa: S104 - the pod's own
            admin=admin,
            key=self._key(),
            limit=self._deploying.grace - _MARGIN,
            router=None if self._pods.router is None else router.address(self._pods.router),
        )
        made = render(self._gateway.name, address, credentials=credentials, node_id="pod", admin_address=admin)
        files = {BOOTSTRAP_FILE: in_pod(made, pod)} | secrets(credentials, address)
        return {
            name: to_json(content) for name, content in files.items()
        }  # also JSON is YAML, and takes a tenth of the time

    def _key(self) -> str:
        """Keeps those who cannot read the target's objects from draining its pods; the same as long as it lives."""
        return sha256(f"xdserve drain {self._owner.uid}".encode()).hexdigest()[:32]

    def _hash(self) -> str:
        return _digest(self._files)

    def _labels(self) -> dict[str, str]:
        return labels(self._owner.ref, self._deploying.release)

    def _object(self, version: str, kind: str, **rest: Any) -> Manifest:  # noqa: ANN401 - as a manifest has it
        ref = self._owner.ref
        owner = {
            "apiVersion": f"{ref.group}/{self._owner.version}".removeprefix("/"),
            "kind": ref.kind,
            "name": ref.name,
            "uid": self._owner.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
        metadata = {
            "name": names.entrance(ref),
            "namespace": ref.namespace,
            "labels": self._labels(),
            "ownerReferences": [owner],
        }
        metadata["annotations"] = {CONTENT: _digest([metadata, rest])}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _confined() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _digest(content: object) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


_TOKEN: Manifest = {"path": TOKEN_FILE, "audience": AUDIENCE, "expirationSeconds": 3600}
_POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": _ENVOY_USER,
    "runAsGroup": _ENVOY_USER,
    "fsGroup": _ENVOY_USER,
    "seccompProfile": {"type": "RuntimeDefault"},
    # Whatever the port is now: one below 1024 that comes later comes to running pods, by xDS, and one pod that
    # cannot listen there holds up all.
    "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
}
