from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from xds.types import ResourceType
from xdserve.metrics import KINDS, SERVICES, STATUSES, VARIANTS, Metrics


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


def test_each_program_counts_for_itself() -> None:
    first, second = Metrics(), Metrics()
    first.acks.labels(type="cds").inc()
    assert b'xdserve_acks_total{type="cds"} 1.0' in first.render()
    assert b'xdserve_acks_total{type="cds"} 0.0' in second.render()
    assert b"process_resident_memory_bytes" in first.render()
