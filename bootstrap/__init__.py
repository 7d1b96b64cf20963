"""The configuration an Envoy starts with."""

from bootstrap.address import Address
from bootstrap.envoy import DEFAULT_ADMIN, XDS_CLUSTER, check_gateway, default_node_id, render, to_json, to_yaml

__all__ = [
    "DEFAULT_ADMIN",
    "XDS_CLUSTER",
    "Address",
    "check_gateway",
    "default_node_id",
    "render",
    "to_json",
    "to_yaml",
]
