"""Every name of an Envoy resource, by identity and never by a hash of settings; and of what is made on Kubernetes.

A name says who a thing is, so that changing what it does changes one resource in place. Services are
``<namespace>/<name>``; every name of a resource holds a slash, so that none meets a name of the bootstrap.
"""

from __future__ import annotations

import re
from hashlib import sha256

from translator.objects.ref import Ref

LISTENER = "gateway/http"

GRPC = "grpc"

ROUTER = "gateway/router"
"""The backend that is the router beside a gateway's Envoy; a user's own backend name holds no slash."""

ENTRANCE = "-gateway"
_LABEL_LENGTH = 63
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DIGITS = 8


def gateway(target: Ref) -> str:
    """The gateway of a target: what an Envoy says in ``node.cluster``."""
    return f"{target.namespace}/{target.name}"


def entrance(target: Ref) -> str:
    """What everything of a dedicated gateway is called on Kubernetes: Service, ServiceAccount, Deployment, the rest.

    ``<name>-gateway``, where that is the name of a Service (RFC 1035: 63 characters, no dot, a letter first). Else what
    can be kept of the name, and a hash of it: two targets never share one.
    """
    name = target.name + ENTRANCE
    if len(name) <= _LABEL_LENGTH and _LABEL.fullmatch(name):
        return name
    end = f"-{sha256(target.name.encode()).hexdigest()[:_DIGITS]}{ENTRANCE}"
    kept = re.sub(r"[^a-z0-9]", "-", target.name)
    kept = kept if kept[0].isalpha() else f"x{kept}"
    return kept[: _LABEL_LENGTH - len(end)].rstrip("-") + end


def authority(release: str) -> str:
    """The Secret of a release's own authority; the chart makes it, and gives the right to read it by this name."""
    return f"{release}-ca"


def report(release: str, pod: str) -> str:
    """The ConfigMap in which a replica of a release, known by its pod, tells the leader of its Envoys."""
    return f"{release}-report-{pod}"


def route_configuration(service: Ref) -> str:
    """The routes of a service: one resource each, so that a bad one harms its own service only.

    A gateway of one service is called as that service is, so that its listener finds the routes by the gateway's name.
    """
    return gateway(service)


def cluster(service: Ref, backend: str) -> str:
    """The cluster of a service's backend, and its assignment: two clusters never share one."""
    return f"{service.namespace}/{service.name}/{backend}"


def backend(cluster: str) -> str:
    """The backend of a cluster that `cluster` made; another name as it is."""
    return cluster.split("/", 2)[-1]


def grpc_backend(backend: str) -> str:
    """The backend that stands for another's gRPC port; a user's own backend name holds no slash."""
    return f"{backend}/{GRPC}"
