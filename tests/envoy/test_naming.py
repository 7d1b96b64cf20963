"""The names that a gateway is asked by: short ones, those of another cluster's domain, and paths below one name."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio

from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.models import grpc_ask, grpc_model
from tests.support.plane import serving
from tests.support.requests import http2
from translator.planners.options import Options

LOCAL = isvc(labels={"networking.kserve.io/visibility": "cluster-local"})
PATH = "/serving/models/iris"
BELOW = Options(path_template="/serving/{{ .Namespace }}/{{ .Name }}")
SHARED = "example.com"
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest_asyncio.fixture
async def echoing(tmp_path, model_servers):
    """A gateway below a path, of a model that says what reaches it."""
    models = backend("iris-predictor", model_servers["stable"].port)
    async with serving(tmp_path, isvc(), models, entrance, options=BELOW) as gateway:
        yield gateway


def kserve_says(**ingress):
    meta = {"name": "inferenceservice-config", "namespace": "kserve"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ingress": json.dumps(ingress)}}


async def test_a_cluster_local_service_is_found_by_the_short_names_of_its_entrance(tmp_path, model_servers):
    models = backend("iris-predictor", model_servers["stable"].port)
    async with serving(tmp_path, LOCAL, models, entrance) as gateway:
        for host in ("iris", "iris-gateway", "IRIS-gateway"):
            assert await gateway.variant(host=host) == "stable"
            assert await gateway.variant(host=f"{host}:{gateway.port}") == "stable"
            assert (await http2(gateway.port, "/v1/models/iris", authority=host)).status == 200
        for host in ("iri", "iris2", "gateway", "models", "iris-predictor", "iris-gateway-2", "iris."):
            reply = await gateway.ask(host=host)
            expected = 200 if host == "iris." else 404
            assert reply.status == expected, (host, reply)


async def test_the_clusters_domain_is_a_setting(tmp_path, model_servers):
    models = backend("iris-predictor", model_servers["stable"].port)
    corp = Options(cluster_domain="corp.example")
    async with serving(tmp_path, LOCAL, models, entrance, options=corp) as gateway:
        for name in ("iris", "iris-gateway"):
            assert await gateway.variant(host=f"{name}.models.svc.corp.example") == "stable"
            assert (await gateway.ask(host=f"{name}.models.svc.cluster.local")).status == 404


async def test_components_have_the_hosts_that_kserve_gives_them_and_follow_its_config_map(tmp_path, model_servers):
    predictor, transformer = model_servers["stable"], model_servers["v2"]
    models = [*backend("iris-predictor", predictor.port), *backend("iris-transformer", transformer.port)]
    both = isvc(predictor={}, transformer={})
    said = kserve_says(
        ingressDomain="ai.example.org", domainTemplate="{{ .Name }}.{{ .Namespace }}.{{ .IngressDomain }}"
    )
    async with serving(tmp_path, both, models, entrance) as gateway:
        assert await gateway.variant(host="iris-predictor-models.example.com") == "stable"
        await gateway.edit(said)
        assert await gateway.variant(host="iris-predictor.models.ai.example.org") == "stable"
        assert await gateway.variant(host="iris.models.ai.example.org") == "v2"
        # It is one of all other names now.
        assert await gateway.variant(host="iris-predictor-models.example.com") == "v2"


async def echoed(gateway, path, **how):
    """The path that reaches the model."""
    reply = await gateway.ask(path, host=SHARED, **how)
    assert reply.status == 200, (path, reply)
    return json.loads(reply.body)["path"]


@pytest.mark.parametrize(
    ("asked", "reaches"),
    [
        ("", "/"),
        ("/", "/"),
        ("?a=b", "/?a=b"),
        ("/echo", "/echo"),
        ("/echo/", "/echo/"),
        ("/echo/serving/models/iris", "/echo/serving/models/iris"),
        ("/v1/models/iris%3Apredict?x=/serving", "/v1/models/iris%3Apredict?x=/serving"),
    ],
)
async def test_below_its_path_a_service_is_asked_without_it(echoing, asked, reaches):
    assert await echoed(echoing, PATH + asked) == reaches


@pytest.mark.parametrize(
    "path", ["/", "/echo", "/serving/models/iris2/echo", "/serving/models", "/serving/other/iris/echo"]
)
async def test_what_is_below_no_path_of_a_service_is_not_found(echoing, path):
    reply = await echoing.ask(path, host=SHARED)
    assert (reply.status, json.loads(reply.body)["error"]["message"]) == (404, "no service has this path")
    assert (await echoing.ask(path, host="iris.models")).status == 200, "by its own names nothing is below a path"


async def test_rules_look_at_the_path_without_what_all_have(tmp_path, model_servers):
    models = [*backend("iris-predictor", model_servers["stable"].port), *backend("iris-v2", model_servers["v2"].port)]
    rules = [
        {"name": name, "matches": [{"path": {"type": kind, "value": value}}], "split": split(v2=1)}
        for name, kind, value in (
            ("exact", "Exact", "/v1/models/iris:predict"),
            ("prefix", "PathPrefix", "/v2"),
            ("regex", "RegularExpression", "^/a/[0-9]+|/b"),
        )
    ]
    ruled = policy(backends=[to_service("v2", "iris-v2")], rules=rules)
    async with serving(tmp_path, isvc(), models, entrance, ruled, options=BELOW) as gateway:
        for path in ("/v1/models/iris:predict", "/v1/models/iris%3apredict", "/v2", "/v2/models", "/a/7", "/b"):
            assert await gateway.variant(PATH + path, host=SHARED) == "v2", path
            assert await gateway.variant(path) == "v2", path
        for path in ("/v1/models/iris", "/v22", "/a/x", "/b/c", ""):
            assert await gateway.variant(PATH + path, host=SHARED) == "stable", path


async def test_grpc_is_served_below_a_path_too(tmp_path):
    async with grpc_model("grpc") as model:
        models = backend("iris-predictor", model.port)
        models[0]["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/h2c"
        async with serving(tmp_path, isvc(), models, entrance, options=BELOW) as gateway:
            assert await grpc_ask(gateway.port, INFER, authority="iris-models.example.com") == "grpc"
            assert await grpc_ask(gateway.port, PATH + INFER, authority=SHARED) == "grpc"
