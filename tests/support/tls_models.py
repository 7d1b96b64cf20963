"""Model servers that speak TLS, each behind a relay that keeps what clients sent."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

from tests.support.http2_model import http2_model
from tests.support.models import grpc_model, model_server
from tests.support.wiretap import wiretap


def server_context(pair, folder, alpn="http/1.1", *, version=None):
    """The server's side of TLS, of one version only where one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.write(folder, f"server-{pair.serial}"))
    context.set_alpn_protocols([alpn])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@asynccontextmanager
async def http_tapped(variant, context=None):
    """A model server for HTTP/1.1, in plain text without a context; the block gets it and its relay."""
    async with model_server(variant, tls=context) as model, wiretap(model.port) as tap:
        yield model, tap


@asynccontextmanager
async def http2_tapped(variant, context):
    """A model server for HTTP/2; the block gets its relay."""
    async with http2_model(variant, ssl=context) as port, wiretap(port) as tap:
        yield tap


@asynccontextmanager
async def grpc_tapped(variant, pair):
    """A model server for gRPC; the block gets it and its relay."""
    async with grpc_model(variant, tls=pair) as model, wiretap(model.port) as tap:
        yield model, tap
