"""Resources as parts of one static configuration, so that `envoy --mode validate` builds them.

That mode builds what a bootstrap lists and fetches nothing. So each resource is there twice: as it is (endpoints and
routes come by xDS), and put together with what belongs to it, so that endpoints and routes are built too. A bootstrap
holds the parts of many gateways at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import bootstrap

Message = dict[str, Any]

Sections = Mapping[str, Sequence[Message]]
"""The resources of a gateway by section."""

CLUSTERS, ENDPOINTS, LISTENERS, ROUTES = "clusters", "endpoints", "listeners", "routes"

AS_IS = "as is:"
_FIRST_PORT = 10_000


class Where(NamedTuple):
    """What Envoy was asked about: a gateway, one of its resources, or a route (host, name) of one."""

    gateway: str
    section: str = ""
    name: str = ""
    route: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Clusters and listeners that a static configuration can hold."""

    where: Where
    clusters: tuple[Message, ...] = ()
    listeners: tuple[Message, ...] = ()


def configuration(parts: Iterable[Part]) -> Message:
    """A gateway's own bootstrap, so that its runtime values hold, with the parts in it."""
    made = bootstrap.render("xdserve/validate", "127.0.0.1:18000", admin_address="127.0.0.1:0")
    del made["dynamic_resources"]["cds_config"], made["dynamic_resources"]["lds_config"]
    static = made["static_resources"]
    static["listeners"] = []
    # Nothing is bound in that mode; but each listener's address must be another.
    ports = count(_FIRST_PORT)
    for part in parts:
        static["clusters"] += part.clusters
        static["listeners"] += [_at_port(listener, next(ports)) for listener in part.listeners]
    return made


def gaps(gateway: str, sections: Sections) -> Iterator[tuple[Where, str]]:
    """What an Envoy would wait for in vain: clusters without assignment, listeners without routes."""
    assigned = {found["cluster_name"] for found in sections[ENDPOINTS]}
    for cluster in sections[CLUSTERS]:
        if cluster["name"] not in assigned:
            yield Where(gateway, CLUSTERS, cluster["name"]), "there is no assignment for this cluster"
    routes = {found["name"] for found in sections[ROUTES]}
    for listener in sections[LISTENERS]:
        wanted = _manager(listener)["rds"]["route_config_name"]
        if wanted not in routes:
            yield Where(gateway, LISTENERS, listener["name"]), f"there are no routes {wanted} for this listener"


def everything(gateway: str, sections: Sections) -> Part:
    """Everything of a gateway, each route leading to a cluster that must be there."""
    parts = list(resources(gateway, sections, checked=True))
    return Part(
        Where(gateway),
        tuple(cluster for part in parts for cluster in part.clusters),
        tuple(listener for part in parts for listener in part.listeners),
    )


def resources(gateway: str, sections: Sections, *, checked: bool = False) -> Iterator[Part]:
    """One part a resource, that can stand alone unless the clusters of its routes are to be ``checked``."""
    assignments = {found["cluster_name"]: found for found in sections[ENDPOINTS]}
    for cluster in sections[CLUSTERS]:
        name = cluster["name"]
        yield Part(Where(gateway, CLUSTERS, name), ({**cluster, "name": f"{AS_IS}{gateway}:{name}"},))
        if name in assignments:
            yield Part(Where(gateway, ENDPOINTS, name), (_static(gateway, cluster, assignments[name]),))
    for listener in sections[LISTENERS]:
        as_is = {**listener, "name": f"{AS_IS}{gateway}:{listener['name']}"}
        yield Part(Where(gateway, LISTENERS, listener["name"]), listeners=(as_is,))
    for found in sections[ROUTES]:
        listeners = tuple(_with_routes(gateway, listener, found, checked=checked) for listener in sections[LISTENERS])
        yield Part(Where(gateway, ROUTES, found["name"]), listeners=listeners)


def routes(gateway: str, sections: Sections, name: str) -> Iterator[Part]:
    """One part a route of a route configuration."""
    number = count()
    whole = next(found for found in sections[ROUTES] if found["name"] == name)
    for host in whole["virtual_hosts"]:
        for route in host["routes"]:
            alone = {**whole, "virtual_hosts": [{**host, "routes": [route]}]}
            made = (_with_routes(gateway, each, alone, checked=False) for each in sections[LISTENERS])
            # Of two listeners of one name the second takes the place of the first, which is then not built.
            listeners = tuple({**each, "name": f"{each['name']}:{next(number)}"} for each in made)
            yield Part(Where(gateway, ROUTES, name, (host["name"], route.get("name", ""))), listeners=listeners)


def _static(gateway: str, cluster: Message, assignment: Message) -> Message:
    kept = {key: value for key, value in cluster.items() if key != "eds_cluster_config"}
    return {**kept, "name": f"{gateway}:{cluster['name']}", "type": "STATIC", "load_assignment": assignment}


def _with_routes(gateway: str, listener: Message, found: Message, *, checked: bool) -> Message:
    made = copy.deepcopy(listener)
    manager = _manager(made)
    manager.pop("rds")
    manager["route_config"] = {**_renamed(found, gateway), "validate_clusters": checked}
    return {**made, "name": f"{gateway}:{listener['name']}"}


def _manager(listener: Message) -> Message:
    found: Message = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def _at_port(listener: Message, port: int) -> Message:
    address = {"socket_address": {**listener["address"]["socket_address"], "port_value": port}}
    return {**listener, "address": address}


def _renamed(found: Message, gateway: str) -> Message:
    """A copy whose routes send to this gateway's clusters."""
    made = copy.deepcopy(found)
    for host in made["virtual_hosts"]:
        for route in host["routes"]:
            action = route.get("route", {})
            if "cluster" in action:
                action["cluster"] = f"{gateway}:{action['cluster']}"
            for share in action.get("weighted_clusters", {}).get("clusters", ()):
                share["name"] = f"{gateway}:{share['name']}"
    return made
