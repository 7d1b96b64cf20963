"""Has a real Envoy check the resources of many cases at once, as `xdserve validate --envoy` does."""

from __future__ import annotations

from collections.abc import Mapping

from tests.golden.cases import Gateways
from tests.support.envoy import envoy_binary
from xdserve.offline.envoy import refusals


def problems(resources: Mapping[str, Gateways]) -> list[str]:
    """What Envoy has against resources, given by what they belong to: a line for each, and none if all is well."""
    named = {
        f"{owner}:{name}": sections for owner, gateways in resources.items() for name, sections in gateways.items()
    }
    return [
        f"{where.gateway} {where.section} {where.name} {where.route or ''}: {words}"
        for where, words in refusals(envoy_binary(), named)
    ]
