"""Services to measure with: InferenceServices with a canary, as documents, as objects, as files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from translator.objects import Object, parse
from xdserve.sources import Put, Source

Documents = list[dict[str, Any]]

NAMESPACE = "models"
SOURCE = Source("fleet.yaml", 1)


def service(number: int, *, weight: int = 10, endpoints: int = 3, name: str = "") -> Documents:
    """What makes a gateway of six resources: an InferenceService with a canary, and two Services with their slices."""
    name = name or f"iris-{number}"
    canary = {"trafficPercent": weight, "predictor": {"name": "v2", "model": {"modelFormat": {"name": "sklearn"}}}}
    spec = {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}, "canary": [canary]}
    found = [_document("serving.kserve.io/v1beta1", "InferenceService", name, spec=spec)]
    for part, host in ((f"{name}-predictor", 0), (f"{name}-v2-predictor", 128)):
        found += [core_service(part), slice_of(part, addresses(number, endpoints, host))]
    return found


def core_service(name: str) -> dict[str, Any]:
    """The Service that KServe makes for a component."""
    ports = [{"name": name[:15], "port": 80, "protocol": "TCP", "targetPort": 8080}]
    spec = {"type": "ClusterIP", "selector": {"app": f"isvc.{name}"}, "ports": ports}
    return _document("v1", "Service", name, spec=spec)


def slice_of(service_name: str, found: Iterable[str], port: int = 8080) -> dict[str, Any]:
    """The one slice of a Service; the first address of it is in zone a, the second in b, and so on."""
    made = _document(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{service_name}-x7k2p",
        labels={"kubernetes.io/service-name": service_name},
        addressType="IPv4",
    )
    conditions = {"ready": True, "serving": True, "terminating": False}
    made["endpoints"] = [{"addresses": [address], "conditions": conditions} for address in found]
    made["ports"] = [{"name": service_name[:15], "port": port, "protocol": "TCP"}]
    return made


def addresses(number: int, count: int, host: int = 0) -> Iterator[str]:
    """Addresses of a service's own, as pods have."""
    for index in range(host, host + count):
        yield f"10.{number >> 8 & 255}.{number & 255}.{index & 255}" if index < 256 else _far(number, index)


def _far(number: int, index: int) -> str:
    return f"11.{number & 255}.{index >> 8}.{index & 255}"


def _document(api_version: str, kind: str, name: str, **rest: object) -> dict[str, Any]:
    labels = rest.pop("labels", {"serving.kserve.io/inferenceservice": name})
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def read(documents: Iterable[dict[str, Any]]) -> list[Object]:
    """The objects of documents."""
    return [found for document in documents if (found := parse(document))]


def puts(documents: Iterable[dict[str, Any]]) -> list[Put]:
    """The objects of documents as news for a pipeline."""
    return [Put(found, SOURCE) for found in read(documents)]


def held(count: int, first: int = 0) -> Iterator[Put]:
    """The objects of many services, without holding their documents."""
    for number in range(first, first + count):
        yield from puts(service(number))


def write(folder: Path, count: int) -> None:
    """A file for each service, each text a copy of the first: to write YAML is slower than to read it."""
    folder.mkdir(parents=True, exist_ok=True)
    first = text(service(1))
    for number in range(count):
        copy = first.replace("iris-1", f"iris-{number}").replace("10.0.1.", f"10.{number >> 8}.{number & 255}.")
        (folder / f"iris-{number}.yaml").write_text(copy)


def text(documents: Documents) -> str:
    """Documents as a person would write them: block style YAML."""
    return yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=False)


EDGE = "edge"
"""The service that has an Envoy, and its gateway's name within the namespace."""


def edge(port: int, upstream: int) -> Documents:
    """A service whose gateway listens on a port of the loopback and whose one pod does so too."""
    spec = {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}}
    target = {"group": "serving.kserve.io", "kind": "InferenceService", "name": EDGE}
    gateway = {"targetRef": target, "address": "127.0.0.1", "port": port}
    part = f"{EDGE}-predictor"
    return [
        stopped(spec, said=False),
        core_service(part),
        slice_of(part, ["127.0.0.1"], upstream),
        {**_document("xdserve.io/v1alpha1", "ServiceGateway", EDGE), "spec": gateway},
    ]


def stopped(spec: dict[str, Any] | None = None, *, said: bool) -> dict[str, Any]:
    """The edge's InferenceService. While it is stopped its gateway answers /readyz with 503."""
    spec = spec or {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}}
    made = _document("serving.kserve.io/v1beta1", "InferenceService", EDGE, spec=spec)
    made["metadata"]["annotations"] = {"serving.kserve.io/stop": str(said).lower()}
    return made
