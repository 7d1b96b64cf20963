"""A backend is ready exactly if there is an endpoint to send to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from translator.objects import parse
from translator.planners.endpoints import SERVICE_STATE, PortOf, endpoints
from translator.planners.indexes import INDEXES
from translator.view import Objects, View

MAYBE = st.sampled_from([True, False, None])
CONDITIONS = st.fixed_dictionaries({"ready": MAYBE, "serving": MAYBE, "terminating": MAYBE})
ENDPOINTS = st.fixed_dictionaries({
    "addresses": st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2"]), max_size=2), "conditions": CONDITIONS
})  # fmt: skip
PORTS = st.lists(st.fixed_dictionaries({"name": st.sampled_from(["http", "other"]), "port": st.just(8080)}), max_size=2)
SLICES = st.lists(
    st.fixed_dictionaries({"endpoints": st.lists(ENDPOINTS, max_size=3), "ports": PORTS}), max_size=3
)  # fmt: skip


def _meta(name, **labels):
    return {"name": name, "namespace": "models", "labels": labels}


@given(SLICES)
def test_ready_means_that_there_are_endpoints(slices):
    objects = Objects(INDEXES)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": _meta("iris")}
    objects.put(parse(service | {"spec": {"ports": [{"name": "http", "port": 80}]}}))
    for number, found in enumerate(slices):
        head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
        meta = _meta(f"iris-{number}", **{"kubernetes.io/service-name": "iris"})
        objects.put(parse(head | {"metadata": meta} | found))
    view = View(objects)
    state = view.derive(SERVICE_STATE, PortOf("models", "iris", None))
    assert state.main.ready == bool(endpoints(view, state.main.source))
