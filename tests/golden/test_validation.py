"""The proof that Envoy's check of the golden cases would see something: it refuses every sort of bad resource."""

from __future__ import annotations

import copy

import pytest

from tests.golden.cases import translate_case
from tests.golden.validation import problems

GATEWAY = "models/iris"


def _routes(gateway):
    return gateway["routes"][0]["virtual_hosts"][0]["routes"]


def _unsorted_ring(gateway):
    gateway["clusters"][0] |= {
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 9, "maximum_ring_size": 2},
    }


def _unknown_field(gateway):
    gateway["clusters"][0]["connect_timeuot"] = "1s"


def _host_name_as_address(gateway):
    address = gateway["endpoints"][0]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    address["socket_address"]["address"] = "model.example.org"


def _port_too_high(gateway):
    address = gateway["endpoints"][0]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    address["socket_address"]["port_value"] = 65_536


def _bad_expression(gateway):
    _routes(gateway)[0]["match"] = {"safe_regex": {"regex": "("}}


def _missing_cluster(gateway):
    _routes(gateway)[-1]["route"]["weighted_clusters"]["clusters"][0]["name"] = "models/iris/nobody"


def _weights_all_0(gateway):
    for share in _routes(gateway)[-1]["route"]["weighted_clusters"]["clusters"]:
        share["weight"] = 0


def _host_twice(gateway):
    gateway["routes"][0]["virtual_hosts"][1]["domains"] = ["*"]


def _unknown_filter(gateway):
    manager = gateway["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][0]["typed_config"]["@type"] = "type.googleapis.com/envoy.none"


SPOILED = {
    _unsorted_ring: "ring hash",
    _unknown_field: "connect_timeuot",
    _host_name_as_address: "malformed IP address",
    _port_too_high: "PortValue",
    _bad_expression: "missing )",
    _missing_cluster: "nobody",
    _weights_all_0: "weight",
    _host_twice: "Only a single wildcard domain",
    _unknown_filter: "envoy.none",
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_bad_resource_is_refused(spoil):
    gateways = copy.deepcopy(translate_case("policy-split")[0])
    spoil(gateways[GATEWAY])
    said = problems({"spoiled": gateways})
    assert len(said) == 1
    assert SPOILED[spoil] in said[0]


def test_the_owner_of_a_bad_resource_is_named():
    good = translate_case("policy-split")[0]
    bad = copy.deepcopy(good)
    _bad_expression(bad[GATEWAY])
    said = problems({"first": good, "second": bad, "third": good})
    assert [line.partition(":")[0] for line in said] == ["second"]


@pytest.mark.parametrize("section", ["endpoints", "routes"])
def test_a_missing_resource_is_seen(section):
    gateways = copy.deepcopy(translate_case("policy-split")[0])
    gateways[GATEWAY][section] = []
    said = problems({"spoiled": gateways})
    assert said
    assert all("models/iris" in line and "there " in line for line in said), said
