"""The methods of an aggregated stream, and what a session sends on one."""

from __future__ import annotations

DELTA_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
"""What Envoys of xdserve's bootstrap call."""

STREAM_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


def responses(session, now):
    """All responses that may go now, in the order to send them."""
    return list(iter(lambda: session.next(now), None))
