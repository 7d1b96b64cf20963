"""The steps about who answers what: protocols and components of KServe, rules of KubeDL."""

from __future__ import annotations

import json

from xdserve.demo import grpcs
from xdserve.demo.files import with_transformer
from xdserve.demo.gateway import Gateway
from xdserve.demo.play import REQUESTS, Play, Sample, sample, samples_step
from xdserve.demo.report import Step

_SOME = 300
_V2_BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [6.8, 2.8, 4.8, 1.4]}]})


async def protocols(play: Play, name: str) -> Step:
    """v1, v2 and gRPC are split alike on one port, and `:explain` goes to the explainer."""
    failed, iris = play.traffic.failed, play.stage.iris
    play.reporter.begin("v1, v2, gRPC and :explain on one port", play.wanted, play.traffic.count())
    samples = [
        await sample("v1", play.wanted, iris.traffic(), REQUESTS // 2),
        await sample("v2", play.wanted, iris.traffic(_v2(iris)), REQUESTS // 2),
        Sample(kind="gRPC", wanted=play.wanted, tally=await grpcs.infer(iris, REQUESTS // 2)),
        await sample(":explain", {"explainer": 1.0}, iris.traffic(_explain(iris)), _SOME),
    ]
    return samples_step(name, samples, play.traffic.failed - failed)


async def transformer(play: Play, name: str) -> Step:
    """A transformer put in front while traffic goes on: v1 and v2 enter there, gRPC and `:explain` where they did."""
    stage, iris, failed = play.stage, play.stage.iris, play.traffic.failed
    before = play.wanted
    await iris.edit(stage.service, with_transformer(stage.service.good))
    try:
        wanted = {"transformer": before["stable"], "v2": before["v2"]}
        play.reporter.begin("a transformer put in front of the predictor", wanted, play.traffic.count())
        samples = [
            await sample("v1", wanted, iris.traffic(), REQUESTS // 2),
            await sample("v2", wanted, iris.traffic(_v2(iris)), REQUESTS // 2),
            Sample(kind="gRPC", wanted=before, tally=await grpcs.infer(iris, REQUESTS // 2)),
            await sample(":explain", {"explainer": 1.0}, iris.traffic(_explain(iris)), _SOME),
            await _component(iris, "transformer", "transformer"),
            await _component(iris, "predictor", "stable"),
        ]
    finally:
        await iris.edit(stage.service, stage.service.good)
    return samples_step(name, samples, play.traffic.failed - failed)


async def _component(gateway: Gateway, component: str, variant: str) -> Sample:
    """Requests to the component's own host."""
    traffic = gateway.traffic(gateway.request(component=component))
    return await sample(f"{component}'s host", {variant: 1.0}, traffic, _SOME)


def _v2(gateway: Gateway) -> bytes:
    return gateway.request(path=f"/v2/models/{gateway.service}/infer", body=_V2_BODY.encode())


def _explain(gateway: Gateway) -> bytes:
    return gateway.request(path=f"/v1/models/{gateway.service}:explain")


async def kubedl(play: Play, name: str) -> Step:
    """KubeDL's own weights split new users; a cookie and a header lead to the predictor that they ask for."""
    failed, mnist = play.traffic.failed, play.stage.mnist
    wanted = {"v1": 0.9, "v2": 0.1}
    cookie, header = {"cookie": "beta=1"}, {"x-model-version": "v1"}
    play.reporter.begin("mnist: trafficWeight, a rule by cookie, one by header", wanted, play.traffic.count())
    samples = [
        await sample("new users", wanted, mnist.traffic(), REQUESTS),
        await sample("cookie beta=1", {"v2": 1.0}, mnist.traffic(mnist.request(cookie)), _SOME),
        await sample("header x-model-version: v1", {"v1": 1.0}, mnist.traffic(mnist.request(header)), _SOME),
        await sample("both (first rule wins)", {"v2": 1.0}, mnist.traffic(mnist.request(cookie | header)), _SOME),
    ]
    return samples_step(name, samples, play.traffic.failed - failed)
