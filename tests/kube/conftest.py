"""Fixtures of tests on a real kube-apiserver.

A run with any of them is in a network of its own (`tests.support.netns`) from its first test to its last: loopback as
everywhere, and `network.address()` for pods. Threads stay where they were started, and gRPC keeps its own from one test
to the next, so that a run that moved between its tests would look for a server in one network and have it in another.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.cluster import Cluster, model_servers
from tests.support.kube import Apiserver
from tests.support.kube_binaries import kube_binaries
from tests.support.kube_seed import seed
from tests.support.netns import Network, NetworkError, allow_networks

_HERE = Path(__file__).parent
_NETWORK = pytest.StashKey[Network | NetworkError]()


def pytest_configure(config):
    allow_networks()


def pytest_collection_finish(session):
    config = session.config
    if config.option.collectonly or not any(_HERE in item.path.parents for item in session.items):
        return
    stack = ExitStack()
    config.add_cleanup(stack.close)
    try:
        config.stash[_NETWORK] = stack.enter_context(Network())
    except NetworkError as error:
        config.stash[_NETWORK] = error


@pytest.fixture(scope="session", autouse=True)
def network(request):
    """The network that these tests run in: `network.address()` gives an address that EndpointSlices accept."""
    network = request.config.stash[_NETWORK]
    if isinstance(network, NetworkError):
        pytest.fail(str(network), pytrace=False)  # the tests that need one alone
    network.outside(kube_binaries)  # to build them takes the way out that the network does not have
    return network


@pytest.fixture(scope="package")
def apiserver(network, tmp_path_factory):
    """A kube-apiserver with all CRDs, shared: a test ends what it starts there, and never the apiserver."""
    with Apiserver(seed(tmp_path_factory.mktemp("kube"))) as apiserver:
        yield apiserver.start()


@pytest.fixture
def lone_apiserver(network, tmp_path_factory):
    """A kube-apiserver of the test's own with all CRDs: to kill, to compact or to take CRDs from."""
    with Apiserver(seed(tmp_path_factory.mktemp("lone"))) as apiserver:
        yield apiserver.start()


@pytest.fixture
def bare_apiserver(network, tmp_path_factory):
    """A kube-apiserver of the test's own without any CRD: `install(*CRDS)` brings them."""
    with Apiserver(tmp_path_factory.mktemp("bare")) as apiserver:
        yield apiserver.start()


@pytest.fixture
def namespace(apiserver):
    """A namespace of the shared apiserver for this test; its objects end with it."""
    name = apiserver.make_namespace(f"test-{uuid.uuid4().hex[:8]}")
    yield name
    apiserver.remove_namespace(name)


@pytest.fixture
def cluster(apiserver, namespace, network, tmp_path):
    """The shared apiserver as xdserve meets it, with a namespace for this test."""
    return Cluster(apiserver, namespace, tmp_path, network)


@pytest_asyncio.fixture
async def models(network):
    """variant -> (address, port) of its model server, for the sample of `Cluster.deploy`."""
    async with model_servers(network) as where:
        yield where
