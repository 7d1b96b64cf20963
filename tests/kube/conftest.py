"""Fixtures of tests on a real kube-apiserver.

All of tests/kube runs in a network of its own (`tests.support.netns`): loopback as everywhere, and `network.address()`
for pods.
"""

from __future__ import annotations

import uuid

import pytest

from tests.support.kube import CRDS, Apiserver
from tests.support.kube_binaries import kube_binaries
from tests.support.netns import Network, allow_networks


def pytest_configure(config):
    allow_networks()


@pytest.fixture(scope="package", autouse=True)
def network():
    """The network that these tests run in: `network.address()` gives an address that EndpointSlices accept."""
    kube_binaries()  # to build them takes the way out that the network does not have
    with Network() as network:
        yield network


@pytest.fixture(scope="package")
def apiserver(network, tmp_path_factory):
    """A kube-apiserver with the upstream CRDs, shared: a test ends what it starts there, and never the apiserver."""
    with Apiserver(tmp_path_factory.mktemp("kube")) as apiserver:
        apiserver.start().install(CRDS)
        yield apiserver


@pytest.fixture
def lone_apiserver(network, tmp_path):
    """A kube-apiserver of the test's own, to kill, to compact or to take CRDs from; it has none yet."""
    with Apiserver(tmp_path) as apiserver:
        yield apiserver.start()


@pytest.fixture
def namespace(apiserver):
    """A namespace of the shared apiserver for this test; its objects end with it."""
    name = apiserver.make_namespace(f"test-{uuid.uuid4().hex[:8]}")
    yield name
    apiserver.remove_namespace(name)
