"""Whatever the edits and their order: what is published is what the final objects alone would give.

And the View property: planning reads nothing that is not recorded, so that an edit can find whom it concerns.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pipeline import documents as d
from tests.unit.pipeline.recorder import SOURCE, Run, made
from translator.objects import Ref
from translator.planners import plan
from translator.planners.endpoints import endpoints
from translator.planners.options import Options
from translator.view import FACT, OBJECT, View
from xdserve.pipeline import AssignmentReader, ServiceReader
from xdserve.sources import Broken, Gone, Put

OPTIONS = Options(allowed_hosts={"models": ("*",)})
NAMES = st.sampled_from(["x", "y"])
CREATED = st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"])
SERVICES = st.sampled_from(
    ["x", "x-predictor", "x-c-predictor", "x-transformer", "x-explainer", "x-p", "y-predictor", "y-p", "echo"]
)
PORTS = st.sampled_from([(("http", 80),), (("http", 8080), ("grpc", 9000)), (("h2c", 80),)])
NAMESPACE = st.sampled_from(["models"] * 7 + ["others"])
TARGETS = st.sampled_from([(d.KSERVE, "x"), (d.KSERVE, "y"), (d.KUBEDL, "x"), (d.CORE, "x"), (d.CORE, "echo")])

inference_services = st.builds(
    d.inference_service,
    NAMES,
    predictor=st.sampled_from(["", "", "c"]),
    explainer=st.booleans(),
    true=st.sampled_from([(), (), ("TransformerReady",), ("ExplainerReady",)]),
    canaries=st.sampled_from([(), (("c", 20),), (("c", 100),), (("predictor", 10),)]),
    transformer=st.booleans(),
    ready=st.sampled_from([{}, {"c": True}, {"c": False}]),
    timeout=st.sampled_from([None, 60]),
    created=CREATED,
    namespace=NAMESPACE,
    metadata=st.sampled_from(
        [
            {},
            {"annotations": {"serving.kserve.io/stop": "true"}},
            {"labels": {"networking.kserve.io/visibility": "cluster-local"}},
        ]
    ),
)
inferences = st.builds(
    d.inference,
    NAMES,
    # A predictor's Service may be that of an InferenceService of the same name, and so may its backend's name.
    st.dictionaries(st.sampled_from(["p", "predictor"]), st.sampled_from([None, 0, 1, 100])),
    created=CREATED,
)
services = st.builds(d.service, SERVICES, ports=PORTS, namespace=NAMESPACE)
slices = st.builds(
    d.endpoint_slice,
    SERVICES,
    st.dictionaries(st.sampled_from(["10.0.0.1", "10.0.0.2"]), st.booleans()),
    suffix=st.sampled_from(["1", "2"]),
    ports=st.sampled_from([(("http", 8080),), (("http", 8080), ("grpc", 9000)), (("h2c", 8080),)]),
    namespace=NAMESPACE,
)


@st.composite
def policies(draw):
    """Always valid ones, whatever the objects: only names of their own backends stand in their splits."""
    target, target_name = draw(TARGETS)
    refs = [
        {"kind": "Service", "name": "x-p", "port": 80},
        {"kind": "Service", "name": "echo", "port": 80},
        {"kind": "Service", "name": "echo", "port": 80, "namespace": "others"},
        {**d.KSERVE, "name": "y"},
        {**d.KSERVE, "name": "x", "sectionName": "c"},
        {**d.KUBEDL, "name": "x", "sectionName": "p"},
    ]
    chosen = draw(st.lists(st.sampled_from(refs), max_size=3))
    backends = [
        {"name": f"b{position}", "ref": ref, "whenUnready": draw(st.sampled_from(["Redistribute", "Fail"]))}
        for position, ref in enumerate(chosen)
    ]
    shares = [
        {"backend": found["name"], "weight": draw(st.integers(0, 3)), "priority": draw(st.integers(0, 1))}
        for found in backends
    ]
    rest = {"sticky": {"by": "Cookie"}} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        rest["rules"] = [{"name": "r", "matches": [{"method": "PUT"}], "timeouts": {"request": "7s"}}]
    if draw(st.booleans()):
        rest["router"] = {"maxConcurrency": draw(st.integers(1, 2))}
    namespace, created, name = draw(NAMESPACE), draw(CREATED), draw(NAMES)
    return d.policy(
        name,
        target,
        target_name=target_name,
        namespace=namespace,
        created=created,
        backends=backends,
        split=shares,
        **rest,
    )


@st.composite
def gateways(draw):
    target, target_name = draw(TARGETS)
    hosts = ["h.example.org", "x-models.example.com", "*.example.org", "y.models"]
    return d.gateway(
        draw(NAMES),
        target,
        target_name=target_name,
        namespace=draw(NAMESPACE),
        created=draw(CREATED),
        hosts=draw(st.lists(st.sampled_from(hosts), unique=True, max_size=2)),
        port=draw(st.sampled_from([8080, 9090])),
        replicas=draw(st.integers(1, 2)),
    )


targets = st.one_of(inference_services, inferences).map(made)
objects = st.one_of(inference_services, inferences, services, slices, services, slices, policies(), gateways()).map(
    made
)
edits = st.one_of(
    objects,
    objects,
    targets,
    slices.map(made),
    st.tuples(st.sampled_from(["gone", "broken"]), st.integers(0, 99)),
    objects.map(lambda found: ("broken", found.ref)),
)
batches = st.lists(st.tuples(st.lists(edits, max_size=6), st.sampled_from([0, 1, 2, 50])), max_size=6)


BASE = [
    made(document)
    for name, address in (("x", "10.0.0.1"), ("y", "10.0.0.2"))
    for document in (
        *d.served(name, address),
        *(
            each
            for part in ("p", "c-predictor")
            for each in (d.service(f"{name}-{part}"), d.endpoint_slice(f"{name}-{part}", {"10.0.0.3": True}))
        ),
        d.policy(name, d.KSERVE, backends=[d.backend("b", f"{name}-p")], split=[{"backend": "b"}]),
    )
]
"""So that there is something to edit: two services, each with a policy and what variants of it would need."""


class World:
    """The objects as they should be held after each edit."""

    def __init__(self) -> None:
        self.held = {}
        self.broken = set()

    def change(self, edit):
        if not isinstance(edit, tuple) or isinstance(edit, Ref):
            return self._put(edit)
        what, which = edit
        ref = which if isinstance(which, Ref) else self._nth(which)
        if ref is None:
            return None
        return self._gone(ref) if what == "gone" else self._break(ref)

    def _put(self, found):
        self.held[found.ref] = found
        self.broken.discard(found.ref)
        return Put(found, SOURCE)

    def _gone(self, ref):
        self.held.pop(ref, None)
        self.broken.discard(ref)
        return Gone(ref)

    def _break(self, ref):
        if ref not in self.held:
            self.broken.add(ref)
        return Broken(ref, (), SOURCE)

    def _nth(self, number):
        refs = sorted({*self.held, *self.broken})
        return refs[number % len(refs)] if refs else None

    def from_scratch(self, active) -> Run:
        """What the objects alone give, and the components that are remembered to be active."""
        run = Run(OPTIONS)
        run.pipeline.remember({}, active)
        run.apply(
            [
                *(Put(self.held[ref], SOURCE) for ref in sorted(self.held)),
                *(Broken(ref, (), SOURCE) for ref in self.broken),
            ]
        )
        return run


@settings(max_examples=80, deadline=None)
@given(start=st.lists(objects, max_size=8), batches=batches, connected=st.booleans(), opened=st.booleans())
def test_edits_come_to_what_the_final_objects_give(start, batches, connected, opened):
    """After the first pass also what was active counts; it is what a program finds that is started now."""
    world, run = World(), Run(OPTIONS)
    if connected:
        run.said.envoys |= {f"{namespace}/{name}" for namespace in ("models", "others") for name in ("x", "y", "echo")}
    run.apply([world.change(found) for found in (*BASE, *start)])
    if opened:
        run.pipeline.open()
    for changes, slices_ in batches:
        run.pipeline.apply([made for edit in changes if (made := world.change(edit)) is not None])
        for _ in range(slices_):
            run.pipeline.run(limit=1)
    run.finish()
    _same(run, world.from_scratch(_decided(run) if opened else {}))
    _reads_are_recorded(run.pipeline)


def _decided(run):
    """What is active, after all that was read to decide it has been read for the last time."""
    for ref in run.pipeline.units:
        run.pipeline._dirty_services[ref] = None
    run.finish()
    return {ref: active for ref in run.pipeline.units if (active := run.pipeline.active(ref)) is not None}


def _same(run, fresh):
    assert run.said.faults == fresh.said.faults == []
    assert run.pipeline.owners == fresh.pipeline.owners
    for name in run.pipeline.owners:
        assert run.resources(name) == fresh.resources(name), name
    # What has no target any more is gone, or answers 404 with no cluster left.
    for name in run.said.scopes.keys() - run.pipeline.owners.keys():
        assert run.said.connected(name)
        assert {kind for kind, _ in run.resources(name)} <= {"lds", "rds"}
    assert run.reasons() == fresh.reasons()
    assert run.pipeline.units.keys() == fresh.pipeline.units.keys()
    # Nothing is held for readers that are no more.
    recorded, wanted = run.pipeline._derived, fresh.pipeline._derived
    assert recorded.readers._reads == wanted.readers._reads
    assert recorded._values.keys() == wanted._values.keys()


class StrictView(View):
    """Refuses what its reader has not been recorded to read."""

    def __init__(self, pipeline, reader):
        super().__init__(pipeline.objects, pipeline._derived)
        self._pipeline = pipeline
        self._allowed = pipeline._derived.readers._reads.get(reader, frozenset())

    def _check(self, key):
        assert key in self._allowed, f"{key} is not recorded"

    def get(self, ref, model):
        self._check((OBJECT, ref))
        return super().get(ref, model)

    def find(self, index, value):
        self._check((index.name, value))
        return super().find(index, value)

    def fact(self, ref, model):
        self._check((FACT, ref))
        return super().fact(ref, model)

    def derive(self, derivation, argument):
        key = (derivation.name, argument)
        self._check(key)
        return derivation.compute(StrictView(self._pipeline, key), argument)


def _reads_are_recorded(pipeline):
    """Planning again, and reading endpoints again, by recorded keys alone gives the same."""
    for ref, unit in pipeline.units.items():
        before = pipeline._inherited.before(ref, unit.planned.active)
        again = plan(StrictView(pipeline, ServiceReader(ref)), ref, OPTIONS, unit.planned.accepted, before)
        assert again == unit.planned
        for backend in unit.backends.values():
            endpoints(StrictView(pipeline, AssignmentReader(ref, backend.name)), backend.endpoints)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(objects, max_size=8).flatmap(
        lambda more: st.tuples(st.just([*BASE, *more]), st.permutations([*BASE, *more]))
    )
)
def test_the_order_of_the_first_objects_does_not_matter(two_orders):
    """Of several texts of one object the last counts, so each object is taken once."""
    runs = []
    for order in two_orders:
        run = Run(OPTIONS)
        once = {found.ref: found for found in two_orders[0]}
        for ref in dict.fromkeys(found.ref for found in order):
            run.apply([Put(once[ref], SOURCE)])
        runs.append(run)
    _same(*runs)


def test_an_unrecorded_key_is_refused():
    """The property above sees what it should see."""
    run = Run(OPTIONS)
    run.put(*d.served("x", "10.0.0.1"))
    (ref,) = run.pipeline.units
    reads = run.pipeline._derived.readers._reads
    before = reads[ServiceReader(ref)]
    for key in before:
        reads[ServiceReader(ref)] = before - {key}
        try:
            _reads_are_recorded(run.pipeline)
        except AssertionError:
            continue
        raise AssertionError(f"{key} was read unseen")
