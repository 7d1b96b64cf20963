"""Documents as users and controllers write them, as plain data; everything is in the namespace `models`."""

from __future__ import annotations

NAMESPACE = "models"
GROUPS = {"InferenceService": "serving.kserve.io", "Inference": "serving.kubedl.io", "Service": ""}
VERSIONS = {"InferenceService": "v1beta1", "Inference": "v1alpha1", "Service": "v1"}


def isvc(name="iris", *, annotations=None, labels=None, status=None, **spec):
    """An InferenceService; `spec` beside a predictor."""
    document = _object("serving.kserve.io/v1beta1", "InferenceService", name, {"predictor": {}, **spec})
    document["metadata"] |= {"annotations": annotations or {}, "labels": labels or {}}
    return document | ({"status": status} if status else {})


def inference(name, **weights):
    """A KubeDL Inference with a predictor for each of `weights`."""
    predictors = [{"name": predictor, "trafficWeight": weight} for predictor, weight in weights.items()]
    return _object("serving.kubedl.io/v1alpha1", "Inference", name, {"framework": "Triton", "predictors": predictors})


def service(name, **ports):
    """A Service whose ports are numbered by name; by default port 80, named like the Service as KServe does."""
    listed = [{"name": port.replace("_", "-"), "port": number} for port, number in (ports or {name: 80}).items()]
    return _object("v1", "Service", name, {"ports": listed})


def endpoints(service_name, port, *, number=0, ready=True, port_name=None):
    """The EndpointSlice of one process of this machine, which listens at `port`."""
    document = _object("discovery.k8s.io/v1", "EndpointSlice", f"{service_name}-{number}", None)
    document["metadata"]["labels"] = {"kubernetes.io/service-name": service_name}
    del document["spec"]
    return document | {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}],
        "ports": [{"name": port_name or service_name, "port": port, "protocol": "TCP"}],
    }


def config_map(name, **data):
    """A ConfigMap; `_` in a key stands for a dot."""
    document = _object("v1", "ConfigMap", name, None)
    del document["spec"]
    return document | {"data": {key.replace("_", "."): text for key, text in data.items()}}


def backend(service_name, *ports):
    """A Service with one endpoint for each of `ports`."""
    return [service(service_name), *(endpoints(service_name, port, number=at) for at, port in enumerate(ports))]


def entrance(port, target="iris", kind="InferenceService", **spec):
    """A ServiceGateway that listens at a port of loopback."""
    more = {"address": "127.0.0.1", "port": port, **spec}
    return _object("xdserve.io/v1alpha1", "ServiceGateway", target, {"targetRef": target_ref(target, kind), **more})


def policy(target="iris", kind="InferenceService", **spec):
    """A TrafficPolicy of a target's own name."""
    return _object("xdserve.io/v1alpha1", "TrafficPolicy", target, {"targetRef": target_ref(target, kind), **spec})


def target_ref(name, kind="InferenceService"):
    return {"group": GROUPS[kind], "kind": kind, "name": name}


def to_service(name, service_name, **more):
    """An entry of a policy's `backends`: the port 80 of a Service."""
    return {"name": name, "ref": {"kind": "Service", "name": service_name, "port": 80}, **more}


def split(**weights):
    """A split by backend."""
    return [{"backend": name.replace("_", "-"), "weight": weight} for name, weight in weights.items()]


def _object(version, kind, name, spec):
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
