"""The steps about who answers what: protocols and components of KServe, rules of KubeDL."""

from __future__ import annotations

import json

from xdserve.demo import grpcs
from xdserve.demo.driver import Tally
from xdserve.demo.files import with_transformer
from xdserve.demo.gateway import Gateway
from xdserve.demo.play import MANY, REQUESTS, Play, Sample, sample, samples_step
from xdserve.demo.report import Step

_V2_BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [6.8, 2.8, 4.8, 1.4]}]})


async def protocols(play: Play, name: str) -> Step:
    """v1, v2 and gRPC are split alike on one port, and `:explain` goes to the explainer."""
    failed, iris = play.traffic.failed, play.stage.iris
    samples = [
        await sample(play, "v1", play.wanted, iris.traffic(), requests=MANY),
        await sample(play, "v2", play.wanted, iris.traffic(_v2(iris)), requests=MANY),
        await _grpc(play),
        await sample(play, ":explain", {"explainer": 1.0}, iris.traffic(_explain(iris))),
    ]
    return samples_step(name, samples, play.traffic.failed - failed)


async def transformer(play: Play, name: str) -> Step:
    """A transformer put in front while traffic goes on: v1 and v2 enter there, gRPC and `:explain` where they did."""
    stage, iris, failed = play.stage, play.stage.iris, play.traffic.failed
    wanted = {"transformer": play.wanted["stable"], "v2": play.wanted["v2"]}
    await iris.edit(stage.service, with_transformer(stage.service.good))
    try:
        samples = [
            await sample(play, "v1", wanted, iris.traffic(), requests=MANY),
            await sample(play, "v2", wanted, iris.traffic(_v2(iris)), requests=MANY),
            await _grpc(play),
            await sample(play, ":explain", {"explainer": 1.0}, iris.traffic(_explain(iris))),
            await _component(play, "transformer", "transformer"),
            await _component(play, "predictor", "stable"),
        ]
    finally:
        await iris.edit(stage.service, stage.service.good)
    return samples_step(name, samples, play.traffic.failed - failed)


async def _grpc(play: Play) -> Sample:
    """ModelInfer, which always goes to the predictor and its canary: the transformer has no port for it."""
    tally = Tally()
    play.reporter.begin("gRPC", play.wanted, tally)
    await grpcs.infer(play.stage.iris, MANY, tally)
    return Sample(kind="gRPC", wanted=play.wanted, tally=tally)


async def _component(play: Play, component: str, variant: str) -> Sample:
    """Requests to the component's own host."""
    iris = play.stage.iris
    return await sample(play, f"{component}'s host", {variant: 1.0}, iris.traffic(iris.request(component=component)))


def _v2(gateway: Gateway) -> bytes:
    return gateway.request(path=f"/v2/models/{gateway.service}/infer", body=_V2_BODY.encode())


def _explain(gateway: Gateway) -> bytes:
    return gateway.request(path=f"/v1/models/{gateway.service}:explain")


async def kubedl(play: Play, name: str) -> Step:
    """KubeDL's own weights split new users; a cookie and a header lead elsewhere, and the first rule wins."""
    failed, mnist = play.traffic.failed, play.stage.mnist
    wanted = {"v1": 0.9, "v2": 0.1}
    cookie, header = {"cookie": "beta=1"}, {"x-model-version": "v1"}
    samples = [
        await sample(play, "new users", wanted, mnist.traffic(), requests=REQUESTS // 2),
        await sample(play, "cookie beta=1", {"v2": 1.0}, mnist.traffic(mnist.request(cookie))),
        await sample(play, "header x-model-version", {"v1": 1.0}, mnist.traffic(mnist.request(header))),
        await sample(play, "both", {"v2": 1.0}, mnist.traffic(mnist.request(cookie | header))),
    ]
    return samples_step(name, samples, play.traffic.failed - failed)
