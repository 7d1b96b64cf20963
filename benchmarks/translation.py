"""Objects to plans to framed resources: in bulk, and for one edit."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from functools import partial
from itertools import cycle

from benchmarks import fleet
from benchmarks.measure import Figure, cpu, once, once_uncollected
from translator import envoy
from translator.envoy import Rendered
from translator.objects.ref import KSERVE, Ref
from translator.planners import Planned, plan
from translator.planners.endpoints import endpoints
from translator.planners.indexes import INDEXES
from translator.planners.options import Options
from translator.view import Derived, Objects, View
from xds.api.envoy.config.endpoint.v3 import LbEndpoint
from xds.wire import Encoder, Resource, resource, sharing
from xdserve.offline import Scopes
from xdserve.pipeline import Pipeline
from xdserve.sources import Put

GATEWAYS = 10_000
SOME = 1_000
"""Gateways of the parts: enough for their sum, and repeatable."""


class Translation:
    """The steps of a pipeline apart from each other."""

    def __init__(self, puts: list[Put]) -> None:
        self.objects = Objects(INDEXES)
        for put in puts:
            self.objects.put(put.object)
        self.refs = [put.object.ref for put in puts if put.object.KIND == "InferenceService"]
        self.encoder = Encoder(memoize=(LbEndpoint,), limit=envoy.ENDPOINTS, shared=envoy.SHARED)

    def plan(self) -> list[Planned]:
        """Plan all services from nothing."""
        derived = Derived(self.objects)
        return [plan(View(self.objects, derived), ref, Options()) for ref in self.refs]

    def render(self, planned: Planned) -> Iterator[Rendered]:
        """The messages of one gateway."""
        service, gateway = planned.service, planned.gateway
        assert service is not None
        assert gateway is not None
        yield envoy.listener(gateway)
        yield envoy.route_configuration(service)
        for backend in service.backends:
            yield envoy.cluster(service.service, backend)
            yield envoy.assignment(service.service, backend, endpoints(View(self.objects), backend.endpoints))

    def frame(self, made: Rendered) -> Resource:
        """One resource."""
        data = self.encoder.encode(made.message)
        framed = resource(made.type, made.name, data, uses=made.uses, origin=made.origin)
        return sharing(framed, self.encoder.shared(made.shared)) if made.shared else framed

    def frames(self, planned: list[Planned]) -> list[Resource]:
        """All resources of some gateways."""
        return [self.frame(made) for one in planned for made in self.render(one)]


def pipeline() -> Pipeline:
    """One that publishes into scopes nobody is connected to."""
    scopes = Scopes()
    return Pipeline(Options(), scopes, scopes)


def run(target: Pipeline) -> None:
    """Do all there is to do."""
    while target.run():
        pass


def _bulk() -> list[Figure]:
    puts = list(fleet.held(GATEWAYS))
    target = pipeline()
    taken = once(partial(target.apply, puts))
    ran = once(partial(run, target))
    target = pipeline()
    target.apply(puts)
    uncollected = once_uncollected(partial(run, target))
    collected = once(gc.collect)
    gc.freeze()
    afterwards = once(gc.collect)
    gc.unfreeze()
    del target
    translation = Translation(puts)
    planned = translation.plan()
    made: list[Resource] = []
    framed = once_uncollected(lambda: made.extend(translation.frames(planned)))
    note = f"{GATEWAYS:,} gateways, {len(made):,} resources"
    return [
        Figure("all plans -> framed, versioned resources", framed, "s", "< 1.5", note),
        _memory(),
        Figure("all objects taken in", taken, "s", "", f"{len(puts):,} objects"),
        Figure("all objects -> resources in scopes", uncollected, "s", "", "planning, readers and scopes too"),
        Figure("the same with the garbage collector", ran, "s", "", "which `xdserve serve` stops meanwhile"),
        Figure("a full collection then", collected * 1e3, "ms", "", "holds up the event loop"),
        Figure(
            "the same once all is frozen", afterwards * 1e3, "ms", "", "as `xdserve serve` does after its first pass"
        ),
    ]


def _memory() -> Figure:
    """What the resources of a part of the gateways add, for all of them."""
    translation = Translation(list(fleet.held(SOME)))
    planned = translation.plan()
    translation.frames(planned)  # what is shared and cached is there then
    gc.collect()
    tracemalloc.start()
    made = translation.frames(planned)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = sum(one.size for one in made) * GATEWAYS / SOME
    note = f"{size / 1e6:.0f} MB of them frames; measured with {len(made):,}"
    return Figure("60,000 resources held", held * GATEWAYS / SOME / 1e6, "MB", "< 60", note)


def _parts() -> list[Figure]:
    translation = Translation(list(fleet.held(SOME)))
    planned = translation.plan()
    rendered = [made for one in planned for made in translation.render(one)]
    encoded = [(made, translation.encoder.encode(made.message)) for made in rendered]
    gc.collect()
    gc.freeze()
    steps = {
        "plan": translation.plan,
        "render": lambda: [list(translation.render(one)) for one in planned],
        "encode": lambda: [translation.encoder.encode(made.message) for made in rendered],
        "version and frame": lambda: [resource(made.type, made.name, data) for made, data in encoded],
    }
    figures = [
        Figure(f"one gateway: {name}", cpu(step, number=1) / SOME * 1e6, "µs", "", "of 6 resources")
        for name, step in steps.items()
    ]
    gc.unfreeze()
    return figures


def _edits(held: int) -> list[float]:
    """CPU µs of one changed service, and of one changed EndpointSlice of 3 and of 1,000 endpoints."""
    target = pipeline()
    target.apply(list(fleet.held(held)))
    large = fleet.service(held, name="large", endpoints=1000)
    target.apply(fleet.puts(large))
    run(target)
    gc.collect()
    gc.freeze()
    addresses = list(fleet.addresses(held, 1001))
    edits = [
        [fleet.puts(fleet.service(1, weight=weight)[:1]) for weight in (20, 30)],
        [fleet.puts([fleet.slice_of("iris-1-predictor", addresses[:count])]) for count in (3, 4)],
        [fleet.puts([fleet.slice_of("large-predictor", addresses[at : at + 1000])]) for at in (0, 1)],
    ]
    return [_edit(target, change) * 1e6 for change in edits]


def _edit(target: Pipeline, change: list[list[Put]]) -> float:
    turn = cycle(change)

    def edit() -> None:
        target.apply(next(turn))
        run(target)

    return cpu(edit, number=100)


def _single() -> list[Figure]:
    few, many = _edits(10), _edits(GATEWAYS)
    return [
        _plan_to_frames(),
        Figure("one changed service, object -> scope", many[0], "µs", "", f"{GATEWAYS:,} held"),
        Figure("the same, 10,000 held over 10 held", many[0] / few[0], "x", "~ 1"),
        Figure("one changed slice of 3 endpoints, object -> scope", many[1], "µs", "", f"{GATEWAYS:,} held"),
        Figure("the same, 10,000 held over 10 held", many[1] / few[1], "x", "~ 1"),
        Figure("one changed slice of 1,000 endpoints, object -> scope", many[2], "µs", "", f"{GATEWAYS:,} held"),
    ]


def _plan_to_frames() -> Figure:
    """The routes are what an edit changes; here all six resources are made anew."""
    translation = Translation(fleet.puts(fleet.service(1)))
    planned = translation.plan()
    assert planned[0].service is not None
    assert planned[0].service.service == Ref(KSERVE, "InferenceService", fleet.NAMESPACE, "iris-1")
    micros = cpu(lambda: translation.frames(planned), number=200) * 1e6
    return Figure("one service, plan -> frames", micros, "µs", "< 150", "all 6 resources")


def figures() -> list[Figure]:
    """The lines of the table."""
    return [*_parts(), *_single(), *_bulk()]
