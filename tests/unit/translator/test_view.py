"""How reads are recorded, and where a change stops."""

from __future__ import annotations

import pytest

from tests.unit.pipeline import documents as d
from tests.unit.pipeline.recorder import made
from translator.objects import EndpointSlice, InferenceService, Ref, Service
from translator.planners.indexes import INDEXES, SLICES
from translator.view import FACT, OBJECT, Absent, Derivation, Derived, Objects, View

READY = Derivation("ready", lambda view, name: any(e.ready for s in view.find(SLICES, name) for e in s.endpoints))
BOTH = Derivation("both", lambda view, names: all(view.derive(READY, name) for name in names))
WEB, API = ("models", "web"), ("models", "api")
SLICE = Ref("discovery.k8s.io", "EndpointSlice", "models", "web-1")


@pytest.fixture
def objects():
    return Objects(INDEXES)


@pytest.fixture
def derived(objects):
    return Derived(objects)


def read(objects, derived, reader, derivation, argument):
    view = View(objects, derived)
    try:
        return view.derive(derivation, argument)
    finally:
        derived.record(reader, view.reads)


class TestObjects:
    def test_an_index_finds_in_order_of_names(self, objects):
        for suffix in ("b", "c", "a"):
            objects.put(made(d.endpoint_slice("web", {}, suffix=suffix)))
        assert [found.ref.name for found in objects.find(SLICES, WEB)] == ["web-a", "web-b", "web-c"]

    def test_a_change_concerns_the_keys_before_and_after(self, objects):
        objects.put(made(d.endpoint_slice("web", {"10.0.0.1": True})))
        moved = d.endpoint_slice("api", {"10.0.0.1": True})
        moved["metadata"]["name"] = "web-1"
        assert objects.put(made(moved)) == {(OBJECT, SLICE), (SLICES.name, WEB), (SLICES.name, API)}
        assert objects.find(SLICES, WEB) == ()

    def test_an_equal_object_concerns_nobody(self, objects):
        objects.put(made(d.service("web")))
        assert objects.put(made(d.service("web"))) == set()

    def test_removing_what_is_not_held_concerns_nobody(self, objects):
        assert objects.remove(SLICE) == set()

    def test_a_broken_one_is_told_from_a_missing_one(self, objects):
        view = View(objects)
        assert view.get(SLICE, EndpointSlice) is Absent.MISSING
        assert objects.broken(SLICE) == {(OBJECT, SLICE)}
        assert objects.broken(SLICE) == set()
        assert view.get(SLICE, EndpointSlice) is Absent.BROKEN
        assert objects.remove(SLICE) == {(OBJECT, SLICE)}
        assert view.get(SLICE, EndpointSlice) is Absent.MISSING

    def test_a_broken_text_keeps_the_last_good_object(self, objects):
        good = made(d.endpoint_slice("web", {"10.0.0.1": True}))
        objects.put(good)
        assert objects.broken(SLICE) == set()
        assert View(objects).get(SLICE, EndpointSlice) is good

    def test_kinds_are_counted(self, objects):
        objects.put(made(d.service("web")))
        objects.put(made(d.service("web", ports=(("http", 81),))))
        objects.put(made(d.service("api")))
        assert (objects.count("Service"), len(objects)) == (2, 2)
        objects.remove(Ref("", "Service", "models", "web"))
        assert objects.count("Service") == 1

    def test_an_equal_fact_concerns_nobody(self, objects):
        assert objects.establish(SLICE, None) == set()
        assert objects.establish(SLICE, "good") == {(FACT, SLICE)}
        assert objects.establish(SLICE, "good") == set()
        assert objects.establish(SLICE, None) == {(FACT, SLICE)}
        assert objects.fact(SLICE) is None


class TestView:
    def test_reads_are_recorded_also_when_they_find_nothing(self, objects):
        view = View(objects)
        view.get(SLICE, EndpointSlice)
        view.find(SLICES, WEB)
        view.derive(READY, API)
        assert view.fact(SLICE, str) is None
        assert view.reads == {(OBJECT, SLICE), (SLICES.name, WEB), (READY.name, API), (FACT, SLICE)}

    def test_an_object_is_read_as_its_own_kind(self, objects):
        objects.put(made(d.service("web")))
        with pytest.raises(TypeError, match="Service models/web is read as InferenceService"):
            View(objects).get(Ref("", "Service", "models", "web"), InferenceService)
        assert isinstance(View(objects).get(Ref("", "Service", "models", "web"), Service), Service)

    def test_a_fact_is_read_as_what_was_established(self, objects):
        objects.establish(SLICE, "good")
        assert View(objects).fact(SLICE, str) == "good"
        with pytest.raises(TypeError, match="the fact of EndpointSlice models/web-1 is read as int"):
            View(objects).fact(SLICE, int)


class TestDerived:
    def put(self, objects, derived, addresses, name="web"):
        return derived.affected(objects.put(made(d.endpoint_slice(name, addresses))))

    def test_an_equal_value_stops_the_change(self, objects, derived):
        assert read(objects, derived, "reader", READY, WEB) is False
        assert self.put(objects, derived, {"10.0.0.1": False}) == set()
        assert self.put(objects, derived, {"10.0.0.1": True}) == {"reader"}
        assert self.put(objects, derived, {"10.0.0.1": True, "10.0.0.2": True}) == set()
        assert read(objects, derived, "reader", READY, WEB) is True

    def test_values_of_values_stop_it_too(self, objects, derived):
        assert read(objects, derived, "reader", BOTH, (WEB, API)) is False
        assert self.put(objects, derived, {"10.0.0.1": True}) == set()
        assert self.put(objects, derived, {"10.0.0.2": True}, "api") == {"reader"}
        assert read(objects, derived, "reader", BOTH, (WEB, API)) is True
        assert self.put(objects, derived, {}) == {"reader"}

    def test_a_value_is_computed_once_for_all_its_readers(self, objects, derived):
        computed = []
        counted = Derivation("counted", lambda view, name: computed.append(name) or view.find(SLICES, name))
        for reader in ("one", "two", "three"):
            read(objects, derived, reader, counted, WEB)
        assert computed == [WEB]
        assert self.put(objects, derived, {}) == {"one", "two", "three"}
        assert computed == [WEB, WEB]

    def test_a_value_that_cannot_be_computed_is_its_readers_failure_until_it_can(self, objects, derived):
        fragile = Derivation("fragile", lambda view, name: 1 / view.derive(READY, name))
        above = Derivation("above", lambda view, name: view.derive(fragile, name))
        for ready in (False, True, False):
            assert self.put(objects, derived, {"10.0.0.1": ready}) == ({"reader"} if derived._values else set())
            if ready:
                assert read(objects, derived, "reader", above, WEB) == 1
            else:
                with pytest.raises(ZeroDivisionError):
                    read(objects, derived, "reader", above, WEB)

    def test_what_nobody_reads_any_more_is_dropped(self, objects, derived):
        read(objects, derived, "reader", BOTH, (WEB, API))
        derived.record("reader", ())
        assert (derived._values, derived.readers._reads, derived.readers._readers) == ({}, {}, {})
        assert self.put(objects, derived, {"10.0.0.1": True}) == set()

    def test_a_value_of_two_readers_stays_with_the_second(self, objects, derived):
        read(objects, derived, "one", READY, WEB)
        read(objects, derived, "two", READY, WEB)
        derived.record("one", ())
        assert self.put(objects, derived, {"10.0.0.1": True}) == {"two"}
