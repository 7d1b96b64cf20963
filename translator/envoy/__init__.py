"""Plans to Envoy's messages: one file a resource type."""

from __future__ import annotations

from translator.envoy.clusters import cluster
from translator.envoy.endpoints import ENDPOINTS, assignment
from translator.envoy.listeners import listener
from translator.envoy.rendered import Rendered
from translator.envoy.routes import route_configuration
from translator.envoy.shared import SHARED

__all__ = ["ENDPOINTS", "SHARED", "Rendered", "assignment", "cluster", "listener", "route_configuration"]
