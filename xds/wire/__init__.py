"""Messages to bytes and back, made for speed and knowing no Envoy name: betterproto2's metadata is all it needs."""

from xds.wire.decode import DecodeError, decode
from xds.wire.encode import EncodeError, Encoder, encode
from xds.wire.resource import Resource, delta_response, resource, sharing

__all__ = [
    "DecodeError",
    "EncodeError",
    "Encoder",
    "Resource",
    "decode",
    "delta_response",
    "encode",
    "resource",
    "sharing",
]
