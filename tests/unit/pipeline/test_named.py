"""Targets that read what is asked for by name keep what they have until there is an answer."""

from __future__ import annotations

import ssl

import pytest

from tests.support.certificates import Authority
from tests.support.documents import backend, isvc, policy
from tests.unit.pipeline.recorder import Recorder, Run
from translator.objects import Ref, parse
from translator.objects.ref import CORE, KSERVE
from translator.planners import tls
from translator.planners.components import ActiveComponents
from translator.planners.options import Options
from translator.view import OBJECT, Derivation, Derived, Named, Objects, View
from xdserve.pipeline import Pipeline

GATEWAY, TARGET = "models/iris", Ref(KSERVE, "InferenceService", "models", "iris")
CA, OTHER = (Ref(CORE, "ConfigMap", "models", name) for name in ("ca", "other"))
PEM = Authority().certificate.decode()


def config_map(ref, text=PEM):
    meta = {"name": ref.name, "namespace": ref.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": text}}


def of_version_9(pem):
    """A certificate with a version that X.509 does not have."""
    der = ssl.PEM_cert_to_DER_cert(pem).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09", 1)
    return ssl.DER_cert_to_PEM_cert(der)


def believing(*names):
    """A policy whose backends are believed by the ConfigMaps of these names."""
    backends = [
        {"name": f"b-{name}", "protocol": "HTTPS", "ref": {"name": "web", "port": 80}, "tls": {"caRef": {"name": name}}}
        for name in names
    ]
    return policy(backends=backends, split=[{"backend": one["name"]} for one in backends])


class NamedRun(Run):
    """A pipeline whose ConfigMaps are asked for by name."""

    def __init__(self):
        self.said, self.named = Recorder(), Named(("ConfigMap",))
        self.pipeline = Pipeline(Options(kserve_config_map=""), self.said, self.said, self.named)
        self.put(isvc(), *backend("iris-predictor", 9000), *backend("web", 9001))


@pytest.fixture
def run():
    return NamedRun()


def test_a_policy_that_names_one_is_in_force_with_the_answer(run):
    before, versions = run.split(GATEWAY), run.resources(GATEWAY)
    run.put(believing("ca"))
    assert run.named.drain() == [CA]
    assert run.pipeline.waiting == {TARGET}
    assert run.resources(GATEWAY) == versions
    run.put(config_map(CA))
    assert not run.pipeline.waiting
    assert (before, run.split(GATEWAY)) == ({"predictor": 1}, {"b-ca": 1})
    assert run.status(GATEWAY) is None


@pytest.mark.parametrize(("answer", "words"), [(Run.gone, "not found"), (Run.broken, "rbac.configMaps")])
def test_an_answer_may_be_that_there_is_none(run, answer, words):
    run.put(believing("ca"))
    answer(run, CA)
    assert not run.pipeline.waiting
    assert words in str(run.reasons())


def test_all_that_is_named_is_waited_for(run):
    run.put(believing("ca", "other"))
    run.put(config_map(CA))
    assert run.pipeline.waiting == {TARGET}
    run.gone(OTHER)
    assert not run.pipeline.waiting


def test_another_target_does_not_wait(run):
    run.put(believing("ca"))
    run.put(isvc("other"), *backend("other-predictor", 9002))
    assert run.split("models/other") == {"predictor": 1}


def test_a_target_that_is_deleted_waits_no_more(run):
    run.put(believing("ca"))
    run.gone(TARGET)
    assert not run.pipeline.waiting
    assert not run.named.awaited
    assert CA not in run.named


def test_what_is_known_is_not_waited_for_again(run):
    run.put(believing("ca"))
    run.put(config_map(CA))
    run.named.drain()
    run.put(isvc("other"), *backend("other-predictor", 9002))
    run.put(believing("ca") | {"metadata": {"name": "two", "namespace": "models"}})
    assert not run.pipeline.waiting
    assert run.named.drain() == []


def test_what_is_named_again_later_is_asked_for_again(run):
    run.put(believing("ca"))
    run.put(config_map(CA))
    run.put(policy())
    assert CA not in run.named
    assert CA in run.named.drain()
    run.gone(CA)  # as the one who asks says
    run.put(believing("ca"))
    assert run.pipeline.waiting == {TARGET}


def test_a_certificate_of_an_unknown_version_is_no_ca(run):
    run.put(believing("ca"))
    run.put(config_map(CA))
    run.put(config_map(CA, of_version_9(PEM)))
    assert "ca.crt that can be read" in str(run.reasons())
    run.put(config_map(CA))
    assert not run.reasons()


def test_a_fault_of_ours_in_what_a_config_map_makes_stays_with_its_readers(run, monkeypatch):
    def fails(text):
        raise ZeroDivisionError

    run.put(believing("ca"))
    run.put(config_map(CA))
    with monkeypatch.context() as patch:
        patch.setattr(tls, "_certificates", fails)
        run.put(config_map(CA, f"renewed {PEM}"))
        assert "internal error" in str(run.reasons())
        assert run.split(GATEWAY) == {"b-ca": 1}
    run.put(config_map(CA))
    assert not run.reasons()


def test_where_nothing_is_asked_for_by_name_nothing_waits():
    run = Run()
    run.put(isvc(), *backend("iris-predictor", 9000), *backend("web", 9001), believing("ca"))
    assert not run.pipeline.waiting
    assert "not found" in str(run.reasons())


def test_what_is_asked_for_always_is_known_before_it_is_read():
    named = Named(("ConfigMap",), (CA,))
    assert named.drain() == [CA]
    assert not named.awaited
    named.answer(CA)
    named.began(CA)
    assert not named.awaited
    named.ceased(CA)
    assert CA in named


def test_a_reader_depends_on_what_its_derived_values_read():
    objects = Objects(())
    named = Named(("ConfigMap",))
    derived = Derived(objects, named)
    first = Derivation("first", lambda view, ref: view.get(ref, object))
    second = Derivation("second", lambda view, ref: (view.derive(first, ref), view.derive(second_half, ref)))
    second_half = Derivation("half", lambda view, ref: view.derive(first, ref))
    view = View(objects, derived)
    view.derive(second, CA)
    derived.record("reader", view.reads)
    assert named.awaited == {(OBJECT, CA)}
    assert derived.depends("reader", {(OBJECT, CA)})
    assert not derived.depends("reader", {(OBJECT, OTHER)})
    derived.record("reader", ())
    assert not named.awaited


@pytest.mark.parametrize("known", [{}, {TARGET: ActiveComponents("transformer", "iris-predictor")}])
def test_one_that_waits_beyond_the_first_pass_is_not_new_and_not_forgotten(known):
    run = NamedRun()
    run.gone(TARGET)
    run.pipeline.remember({TARGET: parse(believing("ca"))}, known)
    run.put(believing("ca"), isvc(transformer={}))
    run.pipeline.settle()
    run.pipeline.open()
    assert run.pipeline.drain() == []
    assert run.pipeline.accepted(TARGET) == parse(believing("ca"))
    run.put(config_map(CA))
    assert run.pipeline.active(TARGET).entry == ("transformer" if known else "predictor")
    assert run.split(GATEWAY) == {"b-ca": 1}
