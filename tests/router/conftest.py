from __future__ import annotations

import pytest

from tests.router.rig import routers


@pytest.fixture
def start(tmp_path):
    """Starts routers: `start(MAX_CONCURRENCY="1")`."""
    with routers(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One router with a simulation, for tests that leave it as it was."""
    with routers(tmp_path_factory.mktemp("router")) as start:
        yield start(
            MODEL_REF="iris",
            GRPC_PORT="0",
            VARIANT="v2",
            KV_ENDPOINTS=" kv-1:6379,, kv-2:6379 , ",
            MAX_BODY_BYTES="100000",
        )
