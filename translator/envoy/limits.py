"""The limits of every listener: Envoy's "Configuring Envoy as an edge proxy", and Envoy's own bounds of headers.

What a ServiceGateway may change is in the plan's `Edge`.
"""

from __future__ import annotations

from datetime import timedelta

BUFFER_LIMIT = 32 << 10
CONNECTION_IDLE = timedelta(hours=1)
HEADERS_TIMEOUT = timedelta(seconds=10)
HEADERS_KIB, MOST_HEADERS = 60, 100
