"""The resource types and their order."""

from __future__ import annotations

from xds.types import REMOVE_ORDER, SEND_ORDER, ResourceType


def test_changes_go_out_clusters_first_and_removals_the_other_way():
    assert [kind.short for kind in SEND_ORDER] == ["cds", "eds", "lds", "rds"]
    assert tuple(reversed(SEND_ORDER)) == REMOVE_ORDER


def test_a_type_is_its_type_url():
    url = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    assert url == ResourceType.ROUTE
    assert ResourceType(url) is ResourceType.ROUTE
    assert f"{ResourceType.ROUTE}" == url


def test_only_clusters_and_listeners_have_a_wildcard():
    assert [kind for kind in ResourceType if kind.wildcard] == [ResourceType.CLUSTER, ResourceType.LISTENER]
