"""The cluster as a source, on a real kube-apiserver: what it holds is what is fed, whatever happens in between."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.kube import Apiserver
from tests.support.kube_objects import endpoint_slice, inference_service, path, policy, service
from tests.support.recording_feed import RecordingFeed
from tests.support.wait import wait_until
from tests.unit.pipeline.recorder import Run
from translator.objects import Ref
from translator.planners.options import Options
from xdserve.kube import course
from xdserve.kube.client import connect
from xdserve.kube.resources import RESOURCES
from xdserve.kube.source import KubernetesSource

CRDS = Path(__file__).parent / "crds"
INFERENCE_SERVICES = CRDS / "serving.kserve.io_inferenceservices.yaml"
KSERVE = "serving.kserve.io"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """An apiserver that is back is found within a second, not eight."""
    monkeypatch.setattr(course, "LONGEST_DELAY", 1.0)


def create(apiserver, *documents):
    for document in documents:
        apiserver.call("POST", path(document), document)


def delete(apiserver, document):
    apiserver.call("DELETE", f"{path(document)}/{document['metadata']['name']}")


def patch(apiserver, document, **changes):
    """A merge patch of a document's top fields."""
    where = f"{path(document)}/{document['metadata']['name']}"
    return apiserver.call("PUT", where, apiserver.call("GET", where) | changes)


@asynccontextmanager
async def begun(client, feed=None, **options):
    """A source that runs, and what it feeds."""
    feed = RecordingFeed() if feed is None else feed
    source = KubernetesSource(client, feed, **options)
    task = asyncio.create_task(source.run())
    try:
        yield source, feed
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()
    assert task.cancelled(), task.exception()


@asynccontextmanager
async def running(apiserver, into=None, **options):
    """The same, synced."""
    async with begun(await connect(apiserver.kubeconfig), into, **options) as (source, feed):
        async with asyncio.timeout(30):
            await source.synced.wait()
        yield source, feed


def iris(namespace, name="iris"):
    return Ref(KSERVE, "InferenceService", namespace, name)


async def test_what_is_there_is_fed_at_once_and_then_every_change(apiserver, namespace, network):
    one = inference_service(namespace, "iris")
    create(apiserver, one, service(namespace, "iris-predictor"))
    create(apiserver, endpoint_slice(namespace, "iris-predictor", "10.1.0.1"))
    async with running(apiserver, namespaces=[namespace]) as (source, feed):
        [first] = feed.batches
        assert len(first) == 3
        assert source.errors() == []

        create(apiserver, policy(namespace, "iris"))
        await wait_until(lambda: feed.names("TrafficPolicy"))
        patch(apiserver, policy(namespace, "iris"), spec=policy(namespace, "iris", 7)["spec"])
        ref = Ref("xdserve.io", "TrafficPolicy", namespace, "iris")
        await wait_until(lambda: feed.objects[ref].spec.split[0].weight == 7)
        assert source.meta(ref).generation == 2
        delete(apiserver, policy(namespace, "iris"))
        await wait_until(lambda: not feed.names("TrafficPolicy"))
        assert source.meta(ref) is None
        assert source.source(ref) is None


async def test_who_writes_to_an_object_finds_its_uid_and_version(apiserver, namespace):
    create(apiserver, inference_service(namespace, "iris"))
    written = apiserver.call("GET", f"{path(inference_service(namespace, 'iris'))}/iris")["metadata"]
    async with running(apiserver, namespaces=[namespace]) as (source, _):
        meta = source.meta(iris(namespace))
        assert (meta.uid, meta.resource_version) == (written["uid"], written["resourceVersion"])
        assert source.source(iris(namespace)).file == f"inferenceservices/{namespace}/iris"


async def test_a_change_that_says_nothing_new_is_not_fed(apiserver, namespace):
    one = service(namespace, "web")
    create(apiserver, one)
    async with running(apiserver, namespaces=[namespace]) as (source, feed):
        before, version = len(feed.batches), source.meta(Ref("", "Service", namespace, "web")).resource_version
        patch(
            apiserver, one, status={"loadBalancer": {}}, spec=service_spec(apiserver, one, sessionAffinity="ClientIP")
        )
        await wait_until(lambda: source.meta(Ref("", "Service", namespace, "web")).resource_version != version)
        assert len(feed.batches) == before


def service_spec(apiserver, document, **changes):
    where = f"{path(document)}/{document['metadata']['name']}"
    return apiserver.call("GET", where)["spec"] | changes


async def test_namespaces_and_labels_restrict_what_is_read(apiserver, namespace):
    other = apiserver.make_namespace(f"{namespace}-other")
    create(apiserver, inference_service(namespace, "mine", labels={"team": "a"}))
    create(apiserver, inference_service(namespace, "theirs", labels={"team": "b"}))
    create(apiserver, inference_service(other, "elsewhere", labels={"team": "a"}), service(namespace, "web"))
    async with running(apiserver, namespaces=[namespace], selector="team in (a)") as (_, feed):
        assert feed.names("InferenceService") == ["mine"]
        assert feed.names("Service", namespace) == ["web"]
        # Its labels decide at any time.
        theirs = inference_service(namespace, "theirs")
        at = f"{path(theirs)}/theirs"
        apiserver.call("PUT", at, with_labels(apiserver.call("GET", at), team="a"))
        await wait_until(lambda: feed.names("InferenceService") == ["mine", "theirs"])
        apiserver.call("PUT", at, with_labels(apiserver.call("GET", at), team="b"))
        await wait_until(lambda: feed.names("InferenceService") == ["mine"])
    async with running(apiserver) as (_, feed):
        assert feed.names("InferenceService", other) == ["elsewhere"]
    apiserver.remove_namespace(other)


def with_labels(document, **labels):
    document["metadata"]["labels"] = labels
    return document


async def test_an_invalid_object_is_told_and_the_last_good_one_stays(apiserver, namespace):
    # The apiserver's schema cannot say that a regular expression must be one; RE2 can.
    ref = Ref("xdserve.io", "TrafficPolicy", namespace, "iris")
    good = policy(namespace, "iris")
    create(apiserver, good)
    async with running(apiserver, namespaces=[namespace]) as (source, feed):
        wrong = {"name": "r", "matches": [{"headers": [{"name": "x", "type": "RegularExpression", "value": "("}]}]}
        patch(apiserver, good, spec=good["spec"] | {"rules": [wrong]})
        await wait_until(lambda: feed.broken)
        [error] = source.errors()
        assert (error.object, error.reason) == (ref, "Invalid")
        assert str(error).startswith(f"trafficpolicies/{namespace}/iris: TrafficPolicy {namespace}/iris: spec.rules[0]")
        assert feed.objects[ref].spec.rules == ()
        assert dict(source.renewed())[error.source.file] == (error,)
        patch(apiserver, good, spec=good["spec"])
        await wait_until(lambda: not feed.broken)
        assert source.errors() == []
        assert dict(source.renewed())[error.source.file] == ()


async def test_endpoint_slices_that_are_not_for_gateways_are_no_error(apiserver, namespace):
    create(apiserver, endpoint_slice(namespace, "outside", "www.example.com", kind="FQDN"))
    async with running(apiserver, namespaces=[namespace]) as (source, feed):
        assert feed.names("EndpointSlice", namespace) == []
        assert source.errors() == []


async def test_a_burst_of_a_thousand_changes_is_all_there_in_few_batches(apiserver, namespace):
    def write(how, weight):
        every = [policy(namespace, f"p{number}", weight) for number in range(1000)]
        with ThreadPoolExecutor(8) as hands:
            list(hands.map(how, every))

    async with running(apiserver, namespaces=[namespace]) as (_, feed):
        await asyncio.to_thread(write, lambda one: create(apiserver, one), 90)
        await wait_until(lambda: len(feed.objects) == 1000, 30)
        before = len(feed.batches)
        await asyncio.to_thread(write, lambda one: patch(apiserver, one, spec=one["spec"]), 5)
        await wait_until(lambda: weights(feed) == {5}, 30)
        assert len(feed.objects) == 1000
        assert len(feed.batches) - before <= 1000


def weights(feed):
    return {one.spec.split[0].weight for one in feed.objects.values()}


async def test_lists_of_many_pages_are_whole(apiserver, namespace):
    await asyncio.to_thread(create, apiserver, *(service(namespace, f"s{number}") for number in range(1)))
    documents = [endpoint_slice(namespace, f"s{number}", "10.1.0.1") for number in range(1100)]
    await asyncio.to_thread(create, apiserver, *documents)
    async with running(apiserver, namespaces=[namespace]) as (source, feed):
        assert len(feed.names("EndpointSlice", namespace)) == 1100
        assert len(feed.batches) == 1
        assert source.requests()["pages"] == len(RESOURCES) + 2


class Planning(Run):
    """A pipeline that does all that a change asks for at once."""

    def __init__(self):
        super().__init__(Options())

    @property
    def counts(self):
        found = self.pipeline.counts
        return found.edits, found.planned_services, found.encoded_assignments


async def test_one_edit_touches_one_service(apiserver, namespace):
    for name in ("a", "b", "c"):
        create(apiserver, inference_service(namespace, name), service(namespace, f"{name}-predictor"))
        create(apiserver, endpoint_slice(namespace, f"{name}-predictor", "10.1.0.1"), policy(namespace, name))
    async with running(apiserver, Planning(), namespaces=[namespace]) as (_, run):
        edits, planned, encoded = run.counts
        patch(apiserver, policy(namespace, "b"), spec=policy(namespace, "b", 7)["spec"])
        await wait_until(lambda: run.counts[0] == edits + 1)
        assert run.counts == (edits + 1, planned + 1, encoded)

        # Endpoints have a short way: nothing is planned for them.
        changed = endpoint_slice(namespace, "b-predictor", "10.1.0.1", "10.1.0.2")
        patch(apiserver, changed, endpoints=changed["endpoints"])
        await wait_until(lambda: run.counts[0] == edits + 2)
        assert run.counts == (edits + 2, planned + 1, encoded + 1)


OUTAGE_SECONDS = 5
"""As many tries as in half a minute without `soon`; the whole program meets half a minute in `test_outages`."""


async def test_a_crash_of_the_apiserver_loses_nothing_and_leaves_nothing_stale(lone_apiserver):
    namespace = lone_apiserver.make_namespace("models")
    stays, goes, late = (policy(namespace, name) for name in ("stays", "goes", "late"))
    create(lone_apiserver, stays, goes)
    async with running(lone_apiserver) as (source, feed):
        lone_apiserver.kill()
        await wait_until(source.errors, 10)
        [error] = source.errors()  # one line for the cluster, not one for each resource
        assert "cannot be reached" in error.message or "broke off" in error.message
        assert feed.names("TrafficPolicy") == ["goes", "stays"]  # what was read stays
        begin = asyncio.get_running_loop().time()
        await wait_until(
            lambda: asyncio.get_running_loop().time() > begin + OUTAGE_SECONDS, OUTAGE_SECONDS + 5, every=0.5
        )
        assert source.errors() == [error]  # told once
        await lone_apiserver.started()
        await asyncio.to_thread(delete, lone_apiserver, goes)
        await asyncio.to_thread(create, lone_apiserver, late)
        await wait_until(lambda: feed.names("TrafficPolicy") == ["late", "stays"], 20)
        await wait_until(lambda: not source.errors(), 20)
        assert all(change for batch in feed.batches[1:] for change in batch)


async def test_what_the_apiserver_has_forgotten_is_listed_anew(lone_apiserver):
    """410 on every watch: etcd is compacted while xdserve hears nothing."""
    namespace = lone_apiserver.make_namespace("models")
    stays, goes, late = (policy(namespace, name) for name in ("stays", "goes", "late"))
    create(lone_apiserver, stays, goes)
    async with running(lone_apiserver) as (source, feed):
        lists = source.requests()["lists"]
        # The source is stopped while the cluster goes on: its process, in life.
        lone_apiserver.kill()
        feed.batches.clear()
        with blind(source):
            await lone_apiserver.started()
            await asyncio.to_thread(delete, lone_apiserver, goes)
            await asyncio.to_thread(create, lone_apiserver, late)
            lone_apiserver.compact()
            await asyncio.to_thread(lone_apiserver.stop)
            await lone_apiserver.started()
        await wait_until(lambda: feed.names("TrafficPolicy") == ["late", "stays"], 30)
        assert source.requests()["lists"] > lists
        kinds = [type(change).__name__ for batch in feed.batches for change in batch]
        assert sorted(kinds) == ["Gone", "Put"]  # what stayed is not told again


class blind:  # noqa: N801 - reads as what it does
    """The source cannot reach the apiserver meanwhile."""

    def __init__(self, source):
        self._client = next(iter(source._reflectors.values()))._client

    def __enter__(self):
        self._host = self._client.configuration.host
        self._client.configuration.host = "https://127.0.0.1:1"

    def __exit__(self, *error):
        self._client.configuration.host = self._host


async def test_a_crd_that_is_not_installed_is_no_error_and_is_picked_up(bare_apiserver, monkeypatch):
    monkeypatch.setattr(course, "POLL_DELAY", 1.0)
    namespace = bare_apiserver.make_namespace("models")
    create(bare_apiserver, service(namespace, "web"))
    async with running(bare_apiserver) as (source, feed):
        assert feed.names("Service", namespace) == ["web"]
        assert source.errors() == []
        assert [resource.plural for resource in RESOURCES if source.installed(resource)] == [
            "services",
            "endpointslices",
        ]
        await asyncio.to_thread(bare_apiserver.install, INFERENCE_SERVICES)
        await asyncio.to_thread(create, bare_apiserver, inference_service(namespace, "iris"))
        await wait_until(lambda: feed.names("InferenceService") == ["iris"], 20)

        # Deleted, and installed again.
        bare_apiserver.kubectl("delete", "crd", "inferenceservices.serving.kserve.io", "--wait=false")
        await wait_until(lambda: not feed.names("InferenceService"), 20)
        await wait_until(lambda: not source.installed(RESOURCES[0]), 20)
        assert source.errors() == []
        await asyncio.to_thread(bare_apiserver.install, INFERENCE_SERVICES)
        await asyncio.to_thread(create, bare_apiserver, inference_service(namespace, "again"))
        await wait_until(lambda: feed.names("InferenceService") == ["again"], 20)


ROLE = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "some"}}
READ = ["get", "list", "watch"]


async def test_a_missing_role_is_one_clear_line_and_is_mended_without_a_restart(lone_apiserver, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "FORBIDDEN_DELAY", 1.0)
    namespace = lone_apiserver.make_namespace("xdserve")
    groups = sorted({resource.group for resource in RESOURCES} - {"gateway.networking.k8s.io"})
    role = ROLE | {"rules": [{"apiGroups": groups, "resources": [r.plural for r in RESOURCES], "verbs": READ}]}
    kubeconfig = account(lone_apiserver, namespace, "reader", role, tmp_path / "reader")
    async with begun(await connect(kubeconfig)) as (source, _):
        await wait_until(source.errors, 10)
        [error] = source.errors()
        assert error.message.startswith(
            "referencegrants.gateway.networking.k8s.io cannot be read, for a role that allows get, list and watch is "
            "missing: referencegrants.gateway.networking.k8s.io is forbidden: User "
            f'"system:serviceaccount:{namespace}:reader" cannot list resource'
        )
        assert not source.synced.is_set()  # nothing is served by half of what is known
        role["rules"][0]["apiGroups"].append("gateway.networking.k8s.io")
        lone_apiserver.apply(role)
        await asyncio.wait_for(source.synced.wait(), 20)
        assert source.errors() == []


def account(apiserver, namespace, name, role, token_file):
    """A kubeconfig of a ServiceAccount with a cluster role."""
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["metadata"]["name"]}
    api_version = "rbac.authorization.k8s.io/v1"
    binding = {"apiVersion": api_version, "kind": "ClusterRoleBinding", "metadata": {"name": "some"}}
    who = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    documents = (who, role, binding | {"subjects": [subject], "roleRef": reference})
    apiserver.apply(*documents, namespace=namespace)
    token_file.write_text(apiserver.account_token(namespace, name))
    return apiserver.write_kubeconfig(token_file.with_suffix(".kubeconfig"), token_file=token_file)


async def test_a_token_that_is_refused_is_read_again(lone_apiserver, tmp_path):
    namespace = lone_apiserver.make_namespace("xdserve")
    role = ROLE | {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": READ}]}
    kubeconfig = account(lone_apiserver, namespace, "reader", role, tmp_path / "token")
    token = (tmp_path / "token").read_text()
    (tmp_path / "token").write_text("refused\n")
    client = await connect(kubeconfig)
    (tmp_path / "token").write_text(token + "\n")
    async with begun(client) as (source, _):
        await asyncio.wait_for(source.synced.wait(), 20)
        assert source.errors() == []


async def test_an_apiserver_that_is_away_at_the_start_is_waited_for(network, tmp_path_factory):
    with Apiserver(tmp_path_factory.mktemp("late")) as apiserver:
        async with begun(await connect(apiserver.kubeconfig)) as (source, _):
            await wait_until(source.errors, 10)
            [error] = source.errors()
            assert error.message.startswith(f"the apiserver {apiserver.url} cannot be reached: ")
            assert (error.source.file, error.reason) == ("kubernetes", "Unreadable")
            await apiserver.started()
            await asyncio.wait_for(source.synced.wait(), 30)
            assert source.errors() == []


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_grants_of_either_version_are_one(apiserver, namespace, version):
    grant = {
        "apiVersion": f"gateway.networking.k8s.io/{version}",
        "kind": "ReferenceGrant",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {
            "from": [{"group": "xdserve.io", "kind": "TrafficPolicy", "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service"}],
        },
    }
    apiserver.apply(grant, namespace=namespace)
    async with running(apiserver, namespaces=[namespace]) as (_, feed):
        assert feed.names("ReferenceGrant", namespace) == ["shop"]
