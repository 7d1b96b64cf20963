"""The resource types and their order."""

from __future__ import annotations

from xds.types import REMOVE_ORDER, SEND_ORDER, ResourceType


def test_changes_go_out_clusters_first_and_removals_the_other_way():
    assert [kind.short for kind in SEND_ORDER] == ["sds", "cds", "eds", "ecds", "lds", "srds", "rds"]
    assert tuple(reversed(SEND_ORDER)) == REMOVE_ORDER


def test_a_type_is_its_type_url():
    url = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    assert url == ResourceType.ROUTE
    assert ResourceType(url) is ResourceType.ROUTE
    assert f"{ResourceType.ROUTE}" == url


def test_only_clusters_listeners_and_scopes_have_a_wildcard():
    wild = [ResourceType.CLUSTER, ResourceType.LISTENER, ResourceType.SCOPED_ROUTE]
    assert [kind for kind in ResourceType if kind.wildcard] == wild


def test_clients_wait_in_silence_for_secrets_and_extensions():
    assert [kind for kind in ResourceType if not kind.says_absent] == [ResourceType.SECRET, ResourceType.EXTENSION]
