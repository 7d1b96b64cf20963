"""``spec.edge`` of a ServiceGateway to the plan of a listener."""

from __future__ import annotations

from functools import lru_cache

from translator.objects.edge import Edge as EdgeSpec
from translator.objects.quantity import amount
from translator.plan import Edge, EscapedSlashes, Underscores


@lru_cache(256)
def planned_edge(spec: EdgeSpec) -> Edge:
    """The plan of ``spec.edge``."""
    return Edge(
        http10=spec.http10 == "Allow",
        ignore_tls_upgrade=spec.upgrade_tls == "Ignore",
        strip_trailing_dot=spec.trailing_dot == "Strip",
        preserve_request_id=spec.request_id == "Preserve",
        underscores=Underscores(spec.underscores),
        escaped_slashes=EscapedSlashes(spec.escaped_slashes),
        preserve_case=spec.header_case == "Preserve",
        stream_window=int(amount(spec.stream_window)),
        connection_window=int(amount(spec.connection_window)),
        concurrent_streams=spec.concurrent_streams,
        request_timeout=spec.request_timeout,
    )


DEFAULT_EDGE = planned_edge(EdgeSpec())
