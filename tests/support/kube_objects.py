"""Small objects of a cluster, as documents for `Apiserver.call` and `Apiserver.apply`, and where they are."""

from __future__ import annotations

PATHS = {
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices",
    "TrafficPolicy": "/apis/xdserve.io/v1alpha1/namespaces/{}/trafficpolicies",
    "ReferenceGrant": "/apis/gateway.networking.k8s.io/v1beta1/namespaces/{}/referencegrants",
    "Service": "/api/v1/namespaces/{}/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
}


def path(document):
    """The collection that a document is in; with its name after it where the document itself is."""
    return PATHS[document["kind"]].format(document["metadata"]["namespace"])


def _document(kind, namespace, name, rest, **metadata):
    group, version = PATHS[kind].split("/namespaces")[0].rsplit("/", 2)[-2:]
    api_version = version if group == "api" else f"{group}/{version}"
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        **rest,
    }


def inference_service(namespace, name, **metadata):
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "gs://models/iris"}
    return _document("InferenceService", namespace, name, {"spec": {"predictor": {"model": model}}}, **metadata)


def service(namespace, name, port=80):
    return _document("Service", namespace, name, {"spec": {"ports": [{"name": "http", "port": port}]}})


def endpoint_slice(namespace, service, *addresses, kind="IPv4"):
    rest = {
        "addressType": kind,
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "http", "port": 8080}],
    }
    return _document("EndpointSlice", namespace, f"{service}-1", rest, labels={"kubernetes.io/service-name": service})


def policy(namespace, name, weight=90):
    target = {"group": "serving.kserve.io", "kind": "InferenceService", "name": name}
    spec = {"targetRef": target, "split": [{"backend": "predictor", "weight": weight}]}
    return _document("TrafficPolicy", namespace, name, {"spec": spec})
