"""The configuration an Envoy starts with."""

from bootstrap.address import Address
from bootstrap.credentials import Credentials, CredentialsError
from bootstrap.envoy import (
    DEFAULT_ADMIN,
    XDS_CLUSTER,
    check_gateway,
    default_node_id,
    render,
    secrets,
    to_json,
    to_yaml,
)

__all__ = [
    "DEFAULT_ADMIN",
    "XDS_CLUSTER",
    "Address",
    "Credentials",
    "CredentialsError",
    "check_gateway",
    "default_node_id",
    "render",
    "secrets",
    "to_json",
    "to_yaml",
]
