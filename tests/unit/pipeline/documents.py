"""Documents of every kind, short to write."""

from __future__ import annotations

KSERVE = {"group": "serving.kserve.io", "kind": "InferenceService"}
KUBEDL = {"group": "serving.kubedl.io", "kind": "Inference"}
CORE = {"kind": "Service"}


def document(api_version, kind, name, *, namespace="models", created=None, **rest):
    metadata = {"name": name, "namespace": namespace, **rest.pop("metadata", {})}
    if created is not None:
        metadata["creationTimestamp"] = created
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def inference_service(
    name,
    *,
    canaries=(),
    predictor="",
    transformer=False,
    explainer=False,
    ready=None,
    true=(),
    timeout=None,
    **metadata,
):
    """`canaries` are (name, percent); `ready` is what the status says of them by name, `true` its true conditions."""
    spec = {"predictor": {"name": predictor, "timeout": timeout}}
    spec |= {part: {} for part, wanted in (("transformer", transformer), ("explainer", explainer)) if wanted}
    if canaries:
        spec["canary"] = [{"trafficPercent": percent, "predictor": {"name": canary}} for canary, percent in canaries]
    status = {"canaryStatuses": [{"name": canary, "ready": said} for canary, said in (ready or {}).items()]}
    status["conditions"] = [{"type": said, "status": "True"} for said in true]
    return document("serving.kserve.io/v1beta1", "InferenceService", name, spec=spec, status=status, **metadata)


def inference(name, weights, **metadata):
    """`weights` by predictor; None is one that is not written."""
    predictors = [{"name": predictor, "trafficWeight": weight} for predictor, weight in weights.items()]
    return document("serving.kubedl.io/v1alpha1", "Inference", name, spec={"predictors": predictors}, **metadata)


def service(name, *, ports=(("http", 80),), **metadata):
    return document("v1", "Service", name, spec={"ports": [{"name": port, "port": n} for port, n in ports]}, **metadata)


def endpoint_slice(service_name, addresses, *, suffix="1", ports=(("http", 8080),), **metadata):
    """`addresses` to whether each is ready."""
    metadata["metadata"] = {"labels": {"kubernetes.io/service-name": service_name}}
    return document(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{service_name}-{suffix}",
        addressType="IPv4",
        endpoints=[{"addresses": [address], "conditions": {"ready": ready}} for address, ready in addresses.items()],
        ports=[{"name": port, "port": number} for port, number in ports],
        **metadata,
    )


def policy(name, target, *, target_name=None, **rest):
    """A TrafficPolicy on the target of its own name, unless another is given."""
    metadata = {key: rest.pop(key) for key in ("namespace", "created") if key in rest}
    spec = {"targetRef": {**target, "name": target_name or name}, **rest}
    return document("xdserve.io/v1alpha1", "TrafficPolicy", name, spec=spec, **metadata)


def gateway(name, target, *, target_name=None, **rest):
    metadata = {key: rest.pop(key) for key in ("namespace", "created") if key in rest}
    spec = {"targetRef": {**target, "name": target_name or name}, **rest}
    return document("xdserve.io/v1alpha1", "ServiceGateway", name, spec=spec, **metadata)


def backend(name, service_name, **rest):
    return {"name": name, "ref": {"kind": "Service", "name": service_name, "port": 80}, **rest}


def served(name, address, *, ready=True):
    """An InferenceService with the Service and slice of its predictor."""
    return [
        inference_service(name),
        service(f"{name}-predictor"),
        endpoint_slice(f"{name}-predictor", {address: ready}),
    ]
