"""The samples in tests/samples as a cluster has them: applied with the statuses that their controllers wrote.

`Recorded` puts them into a namespace, and model servers behind their EndpointSlices, at addresses of the test's network
and at the ports that were recorded. A server's variant is the name of its Service.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import yaml

from tests.support.model import Model, serve
from tests.support.models import grpc_model

SAMPLES = Path(__file__).parents[1] / "samples"
STATUS = "/apis/{}/namespaces/{}/{}/{}/status"
_PLURALS = {
    "InferenceService": "inferenceservices",
    "InferenceGraph": "inferencegraphs",
    "Inference": "inferences",
    "Deployment": "deployments",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
}
_COMMENT = "# "


def documents(path, namespace):
    """The objects of a file, in a namespace, without addresses that the apiserver gives."""
    found = [one for one in yaml.safe_load_all(path.read_text()) if one]
    for one in found:
        one["metadata"]["namespace"] = namespace
        for field in ("clusterIP", "clusterIPs"):
            one.get("spec", {}).pop(field, None)
    return found


def status_in_comment(path):
    """The status at the end of a file, where it is a comment."""
    _, _, text = path.read_text().partition("\n# status:\n")
    return yaml.safe_load("\n".join(line.removeprefix(_COMMENT) for line in text.splitlines()))


class Recorded:
    """Objects for a namespace, and the servers behind them while the context is entered."""

    def __init__(self, namespace, *paths):
        self.namespace = namespace
        self.objects = [one for path in paths for one in documents(path, namespace)]
        self._stack = AsyncExitStack()

    async def __aexit__(self, *error):
        await self._stack.aclose()

    async def __aenter__(self):
        return self

    def of(self, kind):
        """Names of the objects of a kind."""
        return {one["metadata"]["name"] for one in self.objects if one["kind"] == kind}

    def get(self, kind, name):
        """One of the objects."""
        return next(one for one in self.objects if (one["kind"], one["metadata"]["name"]) == (kind, name))

    async def serve(self, network):
        """Start a server for each endpoint that was ready; the others are at addresses where nobody is."""
        for document in self.objects:
            if document["kind"] != "EndpointSlice":
                continue
            variant = document["metadata"]["labels"]["kubernetes.io/service-name"]
            for endpoint in document["endpoints"]:
                address = network.address()
                endpoint["addresses"] = [address]
                for port in document["ports"] if endpoint["conditions"]["ready"] else ():
                    number = port["port"]
                    server = (
                        grpc_model(variant, number, address)
                        if _is_grpc(port)
                        else serve(Model(variant), address, number)
                    )
                    await self._stack.enter_async_context(server)

    def put(self, apiserver):
        """Apply them, and write their statuses as controllers do."""
        plain = [{name: part for name, part in one.items() if name != "status"} for one in self.objects]
        apiserver.apply(*plain, namespace=self.namespace)
        for one in self.objects:
            if "status" in one and one["kind"] in _PLURALS:
                where = one["apiVersion"], self.namespace, _PLURALS[one["kind"]], one["metadata"]["name"]
                path = STATUS.format(*where)
                there = apiserver.call("GET", path.removesuffix("/status"))
                apiserver.call("PUT", path, there | {"status": one["status"]})


def _is_grpc(port):
    return "grpc" in port["name"] or port.get("appProtocol") == "kubernetes.io/h2c"
