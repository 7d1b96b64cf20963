from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from translator import objects
from xds.types import ResourceType
from xdserve.kube.course import Do, Trouble
from xdserve.kube.resources import RESOURCES
from xdserve.metrics import (
    KINDS,
    LIST,
    LOOK,
    PROVISIONER_REQUESTS,
    SERVICES,
    STATUSES,
    TROUBLES,
    VARIANTS,
    WATCH,
    KubernetesMetrics,
    Metrics,
)


def samples(metrics: Metrics) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_every_series_is_there_from_the_start() -> None:
    found = samples(Metrics(process=False))
    types = [{"type": type_.short} for type_ in ResourceType]
    for name in (
        "resources_sent", "resources_removed", "bytes_sent", "responses", "acks", "rejections", "overdue",
        "pushes_coalesced", "stale_answers",
    ):  # fmt: skip
        assert found[f"xdserve_{name}_total"] == types
    assert found["xdserve_refused_resources"] == types
    assert found["xdserve_refused_streams_total"] == [{"status": status} for status in STATUSES]
    assert len(found["xdserve_streams_total"]) == len(VARIANTS) * len(SERVICES)
    assert found["xdserve_objects"] == [{"kind": kind} for kind in KINDS]
    for name in (
        "gateways", "services", "connected_envoys", "errors", "edits_total", "planned_services_total",
        "encoded_assignments_total", "plan_failures_total", "plan_seconds_count",
        "quarantined_total", "unknown_types_total", "store_failures_total", "credential_failures_total",
        "tls_handshakes_total",
    ):  # fmt: skip
        assert found[f"xdserve_{name}"] == [{}]
    assert len(found["xdserve_ack_seconds_count"]) == len(types)
    assert not [name for name in found if name.endswith("_created")]


def test_labels_come_from_closed_sets() -> None:
    labels = {key for name, all_ in samples(Metrics(process=False)).items() for labels in all_ for key in labels}
    assert labels == {"type", "kind", "le", "status", "variant", "service"}


def test_a_count_that_is_kept_elsewhere_is_read_there() -> None:
    metrics = Metrics(process=False)
    metrics.store_failures.set_function(lambda: 3)
    assert b"xdserve_store_failures_total 3.0" in metrics.render()


def test_those_of_kubernetes_are_there_from_the_start_and_nowhere_else() -> None:
    metrics = Metrics(process=False)
    others = samples(metrics)
    KubernetesMetrics(metrics)
    found = {name: labels for name, labels in samples(metrics).items() if name not in others}
    requests, troubles = (LIST, WATCH, LOOK), TROUBLES
    kinds = KINDS
    assert found == {
        "xdserve_reflector_requests_total": [{"kind": kind, "request": one} for kind in kinds for one in requests],
        "xdserve_reflector_failures_total": [{"kind": kind, "trouble": one} for kind in kinds for one in troubles],
        "xdserve_status_writes_total": [{"outcome": one} for one in ("written", "conflict", "error")],
        "xdserve_events_total": [{"outcome": one} for one in ("written", "dropped")],
        "xdserve_provisioner_requests_total": [{"request": one} for one in PROVISIONER_REQUESTS],
        "xdserve_provisioner_failures_total": [{}],
        "xdserve_config_map_reads_total": [
            {"answer": answer} for answer in ("found", "missing", "forbidden", "unanswered")
        ],
        "xdserve_wanted_gateways": [{}],
        "xdserve_applied_gateways": [{}],
        "xdserve_leader": [{}],
        "xdserve_leader_changes_total": [{}],
        "xdserve_certificate_expiry_timestamp_seconds": [{}],
    }


def test_every_kind_that_is_read_and_every_trouble_has_its_series() -> None:
    assert set(KINDS) == {kind for _, _, kind in objects.KINDS}
    # ConfigMaps are read by name, and never followed.
    assert set(KINDS) - {"ConfigMap"} == {resource.kind for resource in RESOURCES}
    assert {trouble.value for trouble in Trouble} == set(TROUBLES)
    assert {do.value for do in Do} == {LIST, WATCH, LOOK}


def test_counts_by_label_that_are_kept_elsewhere_are_read_there() -> None:
    metrics = Metrics(process=False)
    metrics.count("tries", "Tries", of=("one", "two")).set_functions(lambda: {("two",): 2, ("three",): 3})
    assert samples(metrics)["xdserve_tries_total"] == [{"of": "one"}, {"of": "two"}]
    assert b'xdserve_tries_total{of="two"} 2.0' in metrics.render()


def test_each_program_counts_for_itself() -> None:
    first, second = Metrics(), Metrics()
    first.acks.labels(type="cds").inc()
    assert b'xdserve_acks_total{type="cds"} 1.0' in first.render()
    assert b'xdserve_acks_total{type="cds"} 0.0' in second.render()
    assert b"process_resident_memory_bytes" in first.render()
