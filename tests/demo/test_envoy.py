"""A stock Envoy is found, started, asked and ended."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.envoy import running_envoy, static_bootstrap, wait_live
from tests.support.models import model_server
from tests.support.processes import ChildError, exists, free_ports
from xdserve.demo.driver import Traffic, post
from xdserve.demo.envoy import EnvoyNotFoundError, find
from xdserve.demo.statistics import agrees

PREDICT = post("iris", "/v1/models/iris:predict", b'{"instances": [[1, 2]]}')


def weighted(**weights):
    clusters = [{"name": name, "weight": weight} for name, weight in weights.items()]
    return [{"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": clusters}}}]


async def test_a_split_of_a_real_envoy_is_seen_as_it_is(tmp_path):
    port, admin = free_ports(2)
    async with model_server("stable") as stable, model_server("v2") as v2:
        clusters = {"stable": [stable.port], "v2": [v2.port]}
        bootstrap = static_bootstrap(clusters, weighted(stable=90, v2=10), port=port, admin_port=admin)
        with running_envoy(tmp_path, bootstrap, admin) as envoy:
            await envoy.wait_ready()
            async with Traffic("127.0.0.1", port, PREDICT).running() as traffic:
                tally = traffic.count()
                await traffic.until(tally, requests=2000)
            stats = await envoy.stats(r"^cluster\.(stable|v2)\.upstream_rq_total$")
            configs = await envoy.config_dump()
    assert agrees({"stable": 0.9, "v2": 0.1}, tally.variants)
    assert tally.failed == 0
    assert sum(stats.values()) >= tally.total
    assert {"bootstrap", "static_clusters", "static_listeners"} <= {key for config in configs for key in config}
    assert not exists(envoy.child.pid)


async def test_an_envoy_that_cannot_start_says_why(tmp_path):
    with (
        running_envoy(tmp_path, json.dumps({"no_such_field": 1}), free_ports(1)[0]) as envoy,
        pytest.raises(ChildError, match=r"(?s)envoy ended with status.*no_such_field"),
    ):
        await envoy.wait_ready()


async def test_an_envoy_whose_control_plane_is_away_lives_and_is_not_ready(tmp_path):
    admin, xds = free_ports(2)
    bootstrap = static_bootstrap({"xds": [xds]}, [], port=xds, admin_port=admin)
    del bootstrap["static_resources"]["listeners"]
    bootstrap["node"] = {"id": "test", "cluster": "test"}
    source = {"initial_fetch_timeout": "0s", "resource_api_version": "V3", "ads": {}}
    service = {"envoy_grpc": {"cluster_name": "xds"}}
    ads = {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [service]}
    bootstrap["dynamic_resources"] = {"ads_config": ads, "lds_config": source, "cds_config": source}
    bootstrap["static_resources"]["clusters"][0]["http2_protocol_options"] = {}
    with running_envoy(tmp_path, bootstrap, admin) as envoy:
        await wait_live(envoy)
        assert not await envoy.ready()
        with pytest.raises(ChildError, match="was not ready"):
            await envoy.wait_ready(seconds=0.05)


def test_the_extras_envoy_is_found_beside_python():
    assert find() == Path(sys.executable).parent / "envoy"


def test_another_envoy_may_be_named(monkeypatch, tmp_path):
    other = tmp_path / "my-envoy"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert find(other) == other
    monkeypatch.setenv("XDSERVE_ENVOY", str(other))
    assert find() == other


def test_no_envoy_is_one_line_that_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvoyNotFoundError, match=r"^no Envoy found: install the extra xdserve\[demo\][^\n]*$"):
        find()
    with pytest.raises(EnvoyNotFoundError, match="is no program"):
        find(tmp_path / "nothing")
