"""Fixtures of tests that run stock Envoys."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.support import envoy
from tests.support.models import model_server


@pytest.fixture(scope="session")
def envoy_binary():
    """The stock Envoy; without one these tests fail rather than pass unseen."""
    return envoy.envoy_binary()


@pytest_asyncio.fixture
async def model_servers():
    """Two running model servers by variant: `stable` and `v2`."""
    async with AsyncExitStack() as stack:
        yield {variant: await stack.enter_async_context(model_server(variant)) for variant in ("stable", "v2")}
