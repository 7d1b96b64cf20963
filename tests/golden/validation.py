"""Has a real Envoy check resources, those of many gateways in one run of it.

`envoy --mode validate` builds what a bootstrap lists and fetches nothing. So each gateway's resources go into one
static configuration, twice: as they are (EDS, RDS over ADS), and with their parts put together, so that endpoints and
routes are built too. In a static route configuration Envoy also wants every cluster that a route names to exist.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bootstrap
from tests.golden.cases import Gateways
from tests.support.envoy import envoy_binary

Resource = dict[str, Any]


def problems(folder: Path, resources: Mapping[str, Gateways]) -> list[str]:
    """What Envoy has against resources, given by what they belong to: one line an owner, and none if all is well."""
    said = _validate(folder, resources)
    if said is None or len(resources) == 1:
        return [f"{owner}: {said}" for owner in resources if said]
    return [
        f"{owner}: {said}" for owner, gateways in resources.items() if (said := _validate(folder, {owner: gateways}))
    ]


def _validate(folder: Path, resources: Mapping[str, Gateways]) -> str | None:
    file = folder / "bootstrap.json"
    file.write_text(json.dumps(_bootstrap(resources)))
    command = [str(envoy_binary()), "--mode", "validate", "--config-path", str(file), "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return None if done.returncode == 0 else (done.stderr + done.stdout).strip() or f"exit code {done.returncode}"


def _bootstrap(resources: Mapping[str, Gateways]) -> dict[str, Any]:
    """A gateway's own bootstrap, so that its runtime values hold, with the resources in it."""
    made = bootstrap.render("tests/golden", "127.0.0.1:18000", admin_address="127.0.0.1:0")
    del made["dynamic_resources"]["cds_config"], made["dynamic_resources"]["lds_config"]
    static = made["static_resources"]
    static["listeners"] = []
    ports = iter(range(10_000, 65_000))
    for owner, gateways in resources.items():
        for gateway, sections in gateways.items():
            static["clusters"] += _clusters(f"{owner}:{gateway}", sections)
            static["listeners"] += _listeners(f"{owner}:{gateway}", sections, ports)
    return made


def _clusters(scope: str, sections: Mapping[str, list[Resource]]) -> Iterator[Resource]:
    assignments = {found["cluster_name"]: found for found in sections["endpoints"]}
    names = {cluster["name"] for cluster in sections["clusters"]}
    assert assignments.keys() == names, f"{scope}: clusters {names}, assignments {set(assignments)}"
    for cluster in sections["clusters"]:
        yield {**cluster, "name": f"as is:{scope}:{cluster['name']}"}
        static = {key: value for key, value in cluster.items() if key != "eds_cluster_config"}
        yield {
            **static,
            "name": f"{scope}:{cluster['name']}",
            "type": "STATIC",
            "load_assignment": assignments[cluster["name"]],
        }


def _listeners(scope: str, sections: Mapping[str, list[Resource]], ports: Iterator[int]) -> Iterator[Resource]:
    routes = {found["name"]: found for found in sections["routes"]}
    for listener in sections["listeners"]:
        as_is, whole = _at_port(listener, next(ports)), _at_port(listener, next(ports))
        yield {**as_is, "name": f"as is:{scope}"}
        manager = whole["filter_chains"][0]["filters"][0]["typed_config"]
        wanted = manager.pop("rds")["route_config_name"]
        assert routes.keys() == {wanted}, f"{scope}: the listener wants routes {wanted}, there are {list(routes)}"
        manager["route_config"] = _renamed(routes[wanted], scope)
        yield {**whole, "name": scope}


def _at_port(listener: Resource, port: int) -> Resource:
    """A copy that listens elsewhere: one process has many gateways' listeners here."""
    made = copy.deepcopy(listener)
    made["address"]["socket_address"]["port_value"] = port
    return made


def _renamed(routes: Resource, scope: str) -> Resource:
    """A copy whose routes send to this scope's clusters."""
    made = copy.deepcopy(routes)
    for host in made["virtual_hosts"]:
        for route in host["routes"]:
            action = route.get("route", {})
            if "cluster" in action:
                action["cluster"] = f"{scope}:{action['cluster']}"
            for share in action.get("weighted_clusters", {}).get("clusters", ()):
                share["name"] = f"{scope}:{share['name']}"
    return made
