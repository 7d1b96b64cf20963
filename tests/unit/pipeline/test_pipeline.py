"""What an edit costs, what survives a mistake or a fault, and who has a gateway."""

from __future__ import annotations

import pytest

import xdserve.pipeline
from tests.unit.pipeline import documents as d
from tests.unit.pipeline.recorder import Run
from translator.objects import Ref
from translator.plan import Reason
from xds.memory import Refusal
from xds.types import ResourceType
from xdserve.pipeline import SLICE

IRIS = Ref("serving.kserve.io", "InferenceService", "models", "iris")
MNIST = Ref("serving.kubedl.io", "Inference", "models", "iris")
POLICY = Ref("xdserve.io", "TrafficPolicy", "models", "iris")
GATEWAY = "models/iris"
V2 = (d.service("v2"), d.endpoint_slice("v2", {"10.0.0.2": True}))


def split(weight, *, other="v2", **rest):
    shares = [{"backend": "predictor", "weight": 100 - weight}, {"backend": other, "weight": weight}]
    return d.policy("iris", d.KSERVE, backends=[d.backend("v2", "v2")], split=shares, **rest)


@pytest.fixture
def run():
    """`iris` with a policy that gives 10 % to `v2`."""
    run = Run()
    run.put(*d.served("iris", "10.0.0.1"), *V2, split(10))
    assert run.split(GATEWAY) == {"predictor": 90, "v2": 10}
    return run


def test_listeners_hold_once_what_they_have_in_common(run):
    run.put(*d.served("other", "10.0.0.9"))
    one, other = (
        run.said.scopes[name].get(ResourceType.LISTENER, "gateway/http") for name in (GATEWAY, "models/other")
    )
    assert one.version != other.version
    shared = sum(len(part) for part in one.parts if any(part is found for found in other.parts))
    assert shared > 0.8 * len(one.frame)


def test_gateways_may_have_any_number_of_different_edges(run):
    for seconds in range(300):
        run.put(
            d.gateway("iris", d.KSERVE, edge={"requestTimeout": f"{seconds + 1}s", "concurrentStreams": seconds + 1})
        )
    assert run.reasons() == {}


class TestAnEditCostsWhatItTouches:
    def test_an_endpoint_more_re_encodes_one_assignment(self, run):
        planned, encoded = run.counted()
        run.put(d.endpoint_slice("v2", {"10.0.0.2": True, "10.0.0.3": True}))
        assert run.counted() == (planned, encoded + 1)
        assert run.addresses(GATEWAY, "v2") == ["10.0.0.2", "10.0.0.3"]

    def test_a_backend_that_stops_being_ready_is_planned(self, run):
        planned, encoded = run.counted()
        run.put(d.endpoint_slice("v2", {"10.0.0.2": False}))
        assert run.counted() == (planned + 1, encoded + 1)
        assert run.split(GATEWAY) == {"predictor": 1}
        assert run.addresses(GATEWAY, "v2") == []

    def test_a_weight_encodes_no_assignment(self, run):
        planned, encoded = run.counted()
        run.put(split(50))
        assert run.counted() == (planned + 1, encoded)
        assert run.split(GATEWAY) == {"predictor": 50, "v2": 50}

    def test_an_equal_object_is_no_edit(self, run):
        before, published = run.counted(), len(run.said.published)
        run.put(split(10))
        assert (run.counted(), len(run.said.published)) == (before, published)

    def test_what_nobody_reads_costs_nothing(self, run):
        before = run.counted()
        run.put(d.service("other"), d.endpoint_slice("other", {"10.0.9.9": True}))
        assert run.counted() == before

    def test_a_port_of_a_service_that_nobody_uses_is_cut_off(self, run):
        before = run.counted()
        run.put(d.service("v2", ports=(("http", 80), ("metrics", 9100))))
        assert run.counted() == before

    def test_a_new_protocol_is_planned(self, run):
        planned, _ = run.counted()
        before = run.resources(GATEWAY)
        run.put(
            d.service("v2", ports=(("h2c", 80),)), d.endpoint_slice("v2", {"10.0.0.2": True}, ports=(("h2c", 9000),))
        )
        assert run.counted()[0] > planned
        assert run.resources(GATEWAY)["cds", "models/iris/v2"] != before["cds", "models/iris/v2"]

    def test_a_thousand_others_are_left_alone(self, run):
        run.put(
            *(document for n in range(1000) for document in d.served(f"m{n}", f"10.{1 + n // 250}.0.{1 + n % 250}"))
        )
        assert len(run.pipeline.owners) == 1001
        (planned, encoded), published = run.counted(), len(run.said.published)
        run.put(d.endpoint_slice("m7-predictor", {"10.1.0.8": True, "10.9.9.9": True}))
        assert run.counted() == (planned, encoded + 1)
        run.put(split(20))
        assert run.counted() == (planned + 1, encoded + 1)
        run.put(d.endpoint_slice("v2", {"10.0.0.2": False}))
        assert run.counted() == (planned + 2, encoded + 2)
        assert set(run.said.published[published:]) == {"models/m7", GATEWAY}
        run.put(*d.served("another", "10.0.0.9"))
        assert run.counted() == (planned + 3, encoded + 3)

    @pytest.mark.parametrize("name", ["plan", "assignment", "attachment"])
    def test_a_backend_may_have_any_name(self, name):
        run = Run()
        shares = [{"backend": "predictor", "weight": 90}, {"backend": name, "weight": 10}]
        run.put(
            *d.served("iris", "10.0.0.1"),
            *V2,
            d.policy("iris", d.KSERVE, backends=[d.backend(name, "v2")], split=shares),
        )
        run.put(d.endpoint_slice("v2", {"10.0.0.2": False}))
        assert run.split(GATEWAY) == {"predictor": 1}
        run.gone(IRIS)
        assert run.said.forgotten == [GATEWAY]

    def test_work_is_done_in_slices(self):
        run = Run()
        documents = [document for n in range(2 * SLICE + 1) for document in d.served(f"m{n}", "10.0.0.1")]
        run.finish = lambda: None
        run.put(*documents)
        slices = 1
        while run.pipeline.run():
            slices += 1
        assert slices == 3
        assert len(run.pipeline.owners) == 2 * SLICE + 1


class TestLastGood:
    def test_an_invalid_policy_leaves_the_last_valid_one(self, run):
        run.put(split(50, other="v9"))
        assert run.split(GATEWAY) == {"predictor": 90, "v2": 10}
        (said,) = run.reasons()[str(IRIS)]
        assert said == "Invalid TrafficPolicy models/iris: spec.split[1].backend: found v9, allowed predictor, v2"

    def test_and_it_follows_readiness(self, run):
        run.put(split(50, other="v9"))
        run.put(d.endpoint_slice("v2", {"10.0.0.2": False}))
        assert run.split(GATEWAY) == {"predictor": 1}
        run.put(d.endpoint_slice("v2", {"10.0.0.4": True}))
        assert run.split(GATEWAY) == {"predictor": 90, "v2": 10}
        assert run.addresses(GATEWAY, "v2") == ["10.0.0.4"]

    def test_one_mistake_after_another_changes_nothing(self, run):
        run.put(split(50, other="v9"))
        run.put(split(60, other="v8"))
        assert run.split(GATEWAY) == {"predictor": 90, "v2": 10}

    def test_of_many_mistakes_the_first_are_told(self, run):
        rules = [{"name": f"r{n}", "split": [{"backend": f"n{m}"} for m in range(10)]} for n in range(10)]
        run.put(split(50, rules=rules))
        said = [str(found) for found in run.said.findings[IRIS]]
        assert said[0].endswith("spec.rules[0].split[0].backend: found n0, allowed predictor, v2")
        assert said[16:] == ["TrafficPolicy models/iris: spec: found 84 more names that nothing has"]

    def test_mended_it_holds(self, run):
        run.put(split(50, other="v9"))
        run.put(split(50))
        assert run.split(GATEWAY) == {"predictor": 50, "v2": 50}
        assert run.reasons() == {}

    def test_without_one_before_the_target_has_its_own(self):
        run = Run()
        run.put(*d.served("iris", "10.0.0.1"), *V2, split(50, other="v9"))
        assert run.split(GATEWAY) == {"predictor": 1}
        assert str(IRIS) in run.reasons()

    def test_another_policy_is_no_last_good_one(self, run):
        run.gone(POLICY)
        bad = split(50, other="v9")
        bad["metadata"]["name"] = "another"
        run.put(bad)
        assert run.split(GATEWAY) == {"predictor": 1}

    def test_unreadable_text_keeps_the_object(self, run):
        before, resources = run.counted(), run.resources(GATEWAY)
        run.broken(POLICY, IRIS)
        assert (run.counted(), run.resources(GATEWAY)) == (before, resources)


class TestFaults:
    @pytest.fixture
    def faulty(self, run, monkeypatch):
        """Planning `iris` fails, by a fault of ours; `rose` is beside it."""
        run.put(*d.served("rose", "10.0.0.7"))
        real = xdserve.pipeline.plan

        def plan(view, ref, *rest):
            planned = real(view, ref, *rest)
            if ref == IRIS:
                raise ZeroDivisionError("of ours")
            return planned

        monkeypatch.setattr(xdserve.pipeline, "plan", plan)
        return run

    def test_the_service_keeps_what_it_has(self, faulty):
        before = faulty.resources(GATEWAY)
        faulty.put(split(50))
        assert faulty.resources(GATEWAY) == before
        assert [(ref, type(error)) for ref, error in faulty.said.faults] == [(IRIS, ZeroDivisionError)]
        (found,) = faulty.said.findings[IRIS]
        assert found.reason is Reason.FAILED
        assert "of ours" not in found.message
        assert faulty.pipeline.counts.plan_failures == 1

    def test_its_endpoints_go_on_being_followed(self, faulty):
        faulty.put(split(50))
        faulty.put(d.endpoint_slice("iris-predictor", {"10.0.0.5": True}))
        assert faulty.addresses(GATEWAY, "predictor") == ["10.0.0.5"]

    def test_others_are_planned(self, faulty):
        faulty.put(split(50), d.endpoint_slice("rose-predictor", {"10.0.0.7": False}))
        assert faulty.status("models/rose") == 503

    def test_the_next_edit_tries_again(self, faulty, monkeypatch):
        faulty.put(split(50))
        monkeypatch.undo()
        faulty.put(split(40))
        assert faulty.split(GATEWAY) == {"predictor": 60, "v2": 40}
        assert faulty.reasons() == {}

    def test_a_policy_that_cannot_be_looked_at_keeps_nobody_from_anything(self, run, monkeypatch):
        def check(view, ref, options):
            raise ZeroDivisionError("of ours")

        monkeypatch.setattr(xdserve.pipeline, "check", check)
        run.put(split(50), d.policy("other", d.KSERVE, target_name="iris"))
        assert run.split(GATEWAY) == {"predictor": 50, "v2": 50}
        (found,) = run.said.findings[POLICY._replace(name="other")]
        assert found.reason is Reason.FAILED


class TestGateways:
    def conflict(self, *documents):
        """An Inference `iris` has the gateway with backends `a` and `predictor`, then others come."""
        run = Run()
        run.put(
            d.inference("iris", {"a": 50, "predictor": 50}, created="2026-02-01T00:00:00Z"),
            d.service("iris-a", ports=(("http", 8080),)),
            d.endpoint_slice("iris-a", {"10.0.0.8": True}),
            d.service("iris-predictor", ports=(("http", 8080),)),
            d.endpoint_slice("iris-predictor", {"10.0.0.1": True}),
        )
        assert run.split(GATEWAY) == {"a": 50, "predictor": 50}
        run.put(*documents)
        return run

    def test_an_older_target_takes_the_gateway_and_leaves_nothing_of_the_other(self):
        run = self.conflict(d.inference_service("iris", created="2026-01-01T00:00:00Z"))
        assert run.pipeline.owners == {GATEWAY: IRIS}
        assert {name for kind, name in run.resources(GATEWAY) if kind in {"cds", "eds"}} == {"models/iris/predictor"}
        assert list(run.reasons()) == [str(MNIST)]

    def test_a_younger_one_is_told(self):
        run = self.conflict(d.inference_service("iris", created="2026-03-01T00:00:00Z"))
        assert run.pipeline.owners == {GATEWAY: MNIST}
        assert list(run.reasons()) == [str(IRIS)]

    def test_it_goes_back_when_the_older_is_gone(self):
        run = self.conflict(d.inference_service("iris", created="2026-01-01T00:00:00Z"))
        run.gone(IRIS)
        assert run.pipeline.owners == {GATEWAY: MNIST}
        assert run.split(GATEWAY) == {"a": 50, "predictor": 50}
        assert run.reasons() == {}

    def test_without_target_and_envoy_nothing_is_kept(self, run):
        run.gone(IRIS)
        assert run.said.scopes == {}
        assert run.pipeline.owners == {}

    def test_without_target_its_envoys_get_404_until_they_leave(self, run):
        run.said.envoys.add(GATEWAY)
        run.gone(IRIS)
        assert run.status(GATEWAY) == 404
        assert {kind for kind, _ in run.resources(GATEWAY)} == {"lds", "rds"}
        run.said.envoys.clear()
        run.pipeline.release(GATEWAY)
        assert run.said.scopes == {}
        run.pipeline.release(GATEWAY)
        assert run.said.forgotten == [GATEWAY]

    def test_a_gateway_that_never_had_a_target_is_not_forgotten_when_an_envoy_leaves(self):
        """Its service may stand in a file that cannot be read."""
        run = Run()
        run.put(split(10))
        run.broken(IRIS)
        run.pipeline.release(GATEWAY)
        assert run.said.forgotten == []

    def test_a_gateway_whose_target_came_back_stays_when_an_envoy_leaves(self, run):
        run.said.envoys.add(GATEWAY)
        run.gone(IRIS)
        run.put(d.inference_service("iris"))
        run.said.envoys.clear()
        run.pipeline.release(GATEWAY)
        assert run.said.forgotten == []

    def test_a_target_that_comes_back_is_served_again(self, run):
        run.said.envoys.add(GATEWAY)
        before = run.resources(GATEWAY)
        run.gone(IRIS)
        run.put(d.inference_service("iris"))
        assert run.resources(GATEWAY) == before

    def test_a_policy_waits_for_its_target(self):
        run = Run()
        run.put(split(10))
        assert run.reasons() == {
            str(POLICY): [
                "TargetNotFound TrafficPolicy models/iris: spec.targetRef: InferenceService models/iris not found"
            ]
        }
        run.put(*d.served("iris", "10.0.0.1"), *V2)
        assert run.split(GATEWAY) == {"predictor": 90, "v2": 10}
        assert run.reasons() == {}

    def test_no_edit_but_of_a_service_gateway_changes_the_listener(self, run):
        before = run.resources(GATEWAY)["lds", "gateway/http"]
        run.put(split(50, sticky={"by": "Cookie"}, timeouts={"request": "9s"}), d.inference_service("iris", timeout=9))
        run.put(d.endpoint_slice("v2", {}), d.service("iris-predictor", ports=(("h2c", 80),)))
        assert run.resources(GATEWAY)["lds", "gateway/http"] == before
        run.put(d.gateway("iris", d.KSERVE, replicas=5, resources={"limits": {"memory": "1Gi"}}), split(50, router={}))
        assert run.resources(GATEWAY)["lds", "gateway/http"][0] == before[0]  # its origin is the ServiceGateway now
        run.put(d.gateway("iris", d.KSERVE, port=9090))
        assert run.resources(GATEWAY)["lds", "gateway/http"] != before

    def test_a_router_is_where_the_gateway_is(self, run):
        run.put(split(10, router={}))
        assert run.addresses(GATEWAY, "gateway/router") == ["127.0.0.1"]
        assert run.pipeline.units[IRIS].planned.gateway.pods.router.port == 28080
        before = run.resources(GATEWAY)
        run.put(split(10, router={"maxConcurrency": 1, "modelRef": "other"}))
        assert run.resources(GATEWAY) == before  # that is for the pods
        assert run.pipeline.units[IRIS].planned.gateway.pods.router.max_concurrency == 1
        run.put(d.gateway("iris", d.KSERVE, port=9090))
        moved = run.resources(GATEWAY)
        assert {key for key in before if before[key] != moved[key]} == {
            ("lds", "gateway/http"),
            ("eds", f"{GATEWAY}/gateway/router"),
        }
        run.put(split(10))
        assert ("cds", f"{GATEWAY}/gateway/router") not in run.resources(GATEWAY)

    def test_a_policy_that_is_invalid_keeps_its_router(self, run):
        run.put(split(10, router={"maxConcurrency": 3}))
        before = run.pipeline.units[IRIS].planned.gateway
        run.put(split(10, other="nobody", router={"maxConcurrency": 9}))
        assert run.pipeline.units[IRIS].planned.gateway == before
        assert run.addresses(GATEWAY, "gateway/router") == ["127.0.0.1"]

    def test_nothing_is_left_when_all_is_gone(self, run):
        run.gone(*(found.ref for found in list(run.pipeline.objects)))
        assert run.pipeline.units == {}
        derived = run.pipeline._derived
        assert (derived.readers._reads, derived.readers._readers, derived._values) == ({}, {}, {})


class TestRoutesThatAreRefused:
    """Envoys go on with the good routes before, and so with backends that nobody wants any more."""

    @pytest.fixture
    def refused(self, run):
        """The policy moves from `v2` to `v3`, and the routes of that are refused."""
        scope = run.said.scopes[GATEWAY]
        for kept in list(scope.resources()):
            scope.acknowledge(kept.type, {kept.name: kept.version})
        run.put(d.service("v3"), d.endpoint_slice("v3", {"10.0.0.3": True}), split_to_v3())
        bad = scope.wanted(ResourceType.ROUTE, GATEWAY)
        scope.refuse(bad.type, bad.name, Refusal(version=bad.version, code=13, message="no", node="envoy"))
        return run

    def test_their_endpoints_stay_fresh(self, refused):
        assert refused.split(GATEWAY) == {"predictor": 90, "v2": 10}
        encoded = refused.counted()[1]
        refused.put(d.endpoint_slice("v2", {"10.0.0.7": True}))
        assert refused.addresses(GATEWAY, "v2") == ["10.0.0.7"]
        assert refused.counted()[1] == encoded + 1

    def test_and_cost_nothing_when_they_are_not_needed_any_more(self, refused):
        scope = refused.said.scopes[GATEWAY]
        for weight in (20, 30):
            refused.put(split_to_v3(weight))
            good = scope.get(ResourceType.ROUTE, GATEWAY)
            scope.acknowledge(good.type, {good.name: good.version})
        refused.put(split_to_v3(40))
        encoded = refused.counted()[1]
        refused.put(d.endpoint_slice("v2", {"10.0.0.7": True}))
        assert refused.counted()[1] == encoded

    def test_go_with_their_service(self, refused):
        refused.gone(IRIS)
        assert GATEWAY not in refused.said.scopes
        encoded = refused.counted()[1]
        refused.put(d.endpoint_slice("v2", {"10.0.0.7": True}))
        assert refused.counted()[1] == encoded


def split_to_v3(weight=10):
    shares = [{"backend": "predictor", "weight": 100 - weight}, {"backend": "v3", "weight": weight}]
    return d.policy("iris", d.KSERVE, backends=[d.backend("v3", "v3")], split=shares)
