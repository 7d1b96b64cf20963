"""Which request goes where: rules, protocols, components and hosts."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc
import pytest
import pytest_asyncio

from tests.support.documents import backend, endpoints, entrance, inference, isvc, policy, service, split, to_service
from tests.support.models import grpc_ask, grpc_model, model_server
from tests.support.plane import serving
from tests.support.requests import http2

BACKENDS = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = {"method": "POST", "body": b'{"instances": [1]}'}
OUTSIDE = "iris-models.example.com"


def rule(*matches, to="v2", name="rule"):
    return {"name": name, "matches": list(matches), "split": [{"backend": to, "weight": 1}]}


def path(value, kind="PathPrefix"):
    return {"path": {"type": kind, "value": value}}


@pytest_asyncio.fixture
async def with_rules(tmp_path, model_servers):
    """Starts a gateway that sends to `stable` what no rule sends elsewhere."""

    @asynccontextmanager
    async def start(*rules):
        models = backend("iris-predictor", model_servers["stable"].port)
        models += backend("iris-v2-predictor", model_servers["v2"].port)
        made = policy(backends=BACKENDS, split=split(stable=1), rules=list(rules))
        async with serving(tmp_path, isvc(), models, made, entrance) as gateway:
            yield gateway

    return start


async def who(gateway, *requests):
    """Who answers each of the requests, given as (path, headers) or (path, headers, method)."""
    found = []
    for asked, headers, *method in requests:
        how = {"method": method[0]} if method else {}
        found.append(await gateway.variant(asked, headers=headers, **how))
    return found


async def test_headers(with_rules):
    exact = {"headers": [{"name": "x-tester", "value": "true"}]}
    regex = {"headers": [{"name": "x-user", "type": "RegularExpression", "value": "a|b[0-9]+"}]}
    present = {"headers": [{"name": "x-any", "type": "Present"}]}
    prefix = {"headers": [{"name": "x-team", "type": "Prefix", "value": "ml-"}]}
    both = {"headers": [{"name": "x-one", "value": "1"}, {"name": "x-two", "value": "2"}]}
    async with with_rules(rule(exact, regex, present, prefix, both)) as gateway:
        taken = [
            [("X-Tester", "true")],
            [("x-user", "a")],
            [("x-user", "b17")],
            [("x-any", "")],
            [("x-team", "ml-search")],
            [("x-one", "1"), ("x-two", "2")],
        ]
        passed = [
            [],
            [("x-tester", "True")],
            [("x-tester", "true2")],
            [("x-user", "ab17")],
            [("x-user", "c")],
            [("x-team", "not-ml-search")],
            [("x-one", "1")],
        ]
        assert await who(gateway, *(("/", headers) for headers in taken)) == ["v2"] * len(taken)
        assert await who(gateway, *(("/", headers) for headers in passed)) == ["stable"] * len(passed)


async def test_cookies(with_rules):
    exact = {"cookies": [{"name": "beta", "value": "1"}]}
    regex = {"cookies": [{"name": "user", "type": "RegularExpression", "value": "a|b[0-9]+"}]}
    present = {"cookies": [{"name": "any", "type": "Present"}]}
    special = {"cookies": [{"name": "dot", "value": "1.5"}]}
    async with with_rules(rule(exact, regex, present, special)) as gateway:
        taken = ["beta=1", "a=2; beta=1", "beta=1; a=2", "a=2;beta=1;c=3", "user=b17", "x=1; any=; y=2", "dot=1.5"]
        passed = ["", "beta=2", "beta=10", "alphabeta=1", "a=beta=1", "user=ab17", "user=bb", "many=1", "dot=1x5"]
        cookies = [[("cookie", value)] for value in taken + passed]
        found = await who(gateway, *(("/", headers) for headers in cookies))
        assert dict(zip(taken + passed, found, strict=True)) == dict.fromkeys(taken, "v2") | dict.fromkeys(
            passed, "stable"
        )


async def test_query_parameters(with_rules):
    exact = {"queryParams": [{"name": "debug", "value": "1"}]}
    present = {"queryParams": [{"name": "trace", "type": "Present"}]}
    regex = {"queryParams": [{"name": "user", "type": "RegularExpression", "value": "a+"}]}
    async with with_rules(rule(exact, present, regex)) as gateway:
        taken = ["/?debug=1", "/p?a=b&debug=1", "/?trace", "/?trace=", "/?trace=x", "/?user=aaa"]
        passed = ["/", "/?debug=2", "/?debug", "/debug=1", "/?Trace=1", "/?user=aab"]
        assert await who(gateway, *((asked, []) for asked in taken)) == ["v2"] * len(taken)
        assert await who(gateway, *((asked, []) for asked in passed)) == ["stable"] * len(passed)


async def test_paths(with_rules):
    rules = rule(path("/v1/models"), path("/only", "Exact"), path("/r/[a-z]+/x", "RegularExpression"), path("/end/"))
    async with with_rules(rules) as gateway:
        taken = ["/v1/models", "/v1/models/", "/v1/models/iris", "/v1/models?x=1", "/only", "/only?x", "/r/ab/x"]
        taken += ["/end", "/end/", "/end/x"]
        passed = ["/", "/v1", "/v1/models2", "/v1/modelsX/y", "/only/", "/onlyx", "/r/ab/xy", "/x/r/ab/x", "/R/ab/x"]
        passed += ["/ending"]
        found = await who(gateway, *((asked, []) for asked in taken + passed))
        assert dict(zip(taken + passed, found, strict=True)) == dict.fromkeys(taken, "v2") | dict.fromkeys(
            passed, "stable"
        )


async def test_methods_and_all_parts_of_a_match(with_rules):
    whole = path("/v2") | {"method": "POST", "headers": [{"name": "x-tester", "value": "1"}]}
    async with with_rules(rule(whole, {"method": "DELETE"})) as gateway:
        tester = [("x-tester", "1")]
        assert await who(gateway, ("/v2", tester, "POST"), ("/", [], "DELETE")) == ["v2", "v2"]
        others = [("/v2", tester, "GET"), ("/v2", [], "POST"), ("/v1", tester, "POST")]
        assert await who(gateway, *others) == ["stable"] * 3


async def test_the_first_rule_that_matches_wins(with_rules):
    tester = {"headers": [{"name": "x-tester", "value": "1"}]}
    first, second = rule(tester, to="stable", name="first"), rule(path("/v2"), name="second")
    async with with_rules(first, second) as gateway:
        assert await who(gateway, ("/v2", [("x-tester", "1")]), ("/v2", [])) == ["stable", "v2"]
        await gateway.edit(policy(backends=BACKENDS, split=split(stable=1), rules=[second, first]))
        assert await who(gateway, ("/v2", [("x-tester", "1")]), ("/v2", [])) == ["v2", "v2"]


async def test_a_rule_without_matches_takes_all(with_rules):
    async with with_rules({"name": "all", "split": split(v2=1)}) as gateway:
        assert await gateway.variant("/anything") == "v2"


async def test_rules_hold_over_http2_as_well(with_rules):
    tester = {"headers": [{"name": "x-tester", "value": "1"}], "cookies": [{"name": "b", "value": "2"}]}
    async with with_rules(rule(tester)) as gateway:
        # HTTP/2 clients may send each cookie in a field of its own.
        headers = [("x-tester", "1"), ("cookie", "a=1"), ("cookie", "b=2")]
        assert json.loads((await http2(gateway.port, "/x", headers=headers)).body)["variant"] == "v2"
        assert json.loads((await http2(gateway.port, "/x", headers=headers[:2])).body)["variant"] == "stable"


async def test_v1_and_v2_and_headers_of_kserve_reach_the_model(with_rules):
    async with with_rules() as gateway:
        reply = await gateway.ask("/v1/models/iris:predict", method="POST", body=b'{"instances": [1, 2]}')
        assert json.loads(reply.body) == {"predictions": [0, 0], "variant": "stable"}
        body = json.dumps({"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]})
        reply = await gateway.ask("/v2/models/iris/infer", method="POST", body=body.encode())
        assert json.loads(reply.body)["outputs"][0]["shape"] == [3]
        seen = json.loads((await gateway.ask("/echo", headers=[("kserve-isvc-name", "forged")])).body)["headers"]
        assert (seen["kserve-isvc-name"], seen["kserve-isvc-namespace"]) == ("iris", "models")


@pytest_asyncio.fixture
async def servers():
    """Model servers made when they are first asked for, by variant and protocol."""
    async with AsyncExitStack() as stack:

        async def make(variant, *, grpc=False):
            start = grpc_model if grpc else model_server
            return await stack.enter_async_context(start(variant))

        yield make


async def test_explain_goes_to_the_explainer_and_all_else_to_the_predictor(tmp_path, servers):
    predictor, explainer = await servers("predictor"), await servers("explainer")
    models = [*backend("iris-predictor", predictor.port), *backend("iris-explainer", explainer.port)]
    async with serving(tmp_path, isvc(explainer={}), models, entrance) as gateway:
        for asked, answers in {
            "/v1/models/iris:explain": "explainer",
            "/v1/models/iris-2_x:explain": "explainer",
            "/v1/models/iris:predict": "predictor",
            "/v1/models/iris": "predictor",
            "/v1/models/iris:explain/more": "predictor",
            "/v2/models/iris:explain": "predictor",
            "/": "predictor",
        }.items():
            assert await gateway.variant(asked, **PREDICT) == answers, asked
        # A rule comes before :explain.
        testers = {"headers": [{"name": "x-tester", "value": "1"}]}
        mine = rule(testers, to="predictor", name="testers")
        await gateway.edit(policy(rules=[mine]))
        explain = {"path": "/v1/models/iris:explain", **PREDICT}
        assert await gateway.variant(**explain, headers=[("x-tester", "1")]) == "predictor"
        assert await gateway.variant(**explain) == "explainer"


async def test_a_transformer_takes_what_is_for_the_predictor(tmp_path, servers):
    predictor, transformer = await servers("predictor"), await servers("transformer")
    models = [*backend("iris-predictor", predictor.port), *backend("iris-transformer", transformer.port)]
    async with serving(tmp_path, isvc(transformer={}), models, entrance) as gateway:
        assert await gateway.variant("/v1/models/iris:predict", **PREDICT) == "transformer"
        assert await gateway.variant("/v2/models/iris") == "transformer"


async def test_a_components_own_host_reaches_it_without_rules_and_split(tmp_path, servers):
    parts = {name: await servers(name) for name in ("predictor", "transformer", "explainer")}
    v2 = await servers("v2")
    models = [one for name, made in parts.items() for one in backend(f"iris-{name}", made.port)]
    models += backend("iris-v2-predictor", v2.port)
    all_to_v2 = policy(
        backends=BACKENDS[1:], split=split(v2=1), rules=[rule(path("/"), to="v2")], sticky={"by": "Cookie"}
    )
    async with serving(tmp_path, isvc(transformer={}, explainer={}), models, all_to_v2, entrance) as gateway:
        for name in parts:
            assert await gateway.variant(host=f"iris-{name}-models.example.com") == name
            assert await gateway.variant(host=f"iris-{name}-models.example.com:8080") == name
        assert await gateway.variant() == "v2"
        assert await gateway.variant(host="anything.else") == "v2"


IN_CLUSTER = [
    f"{name}.models{suffix}" for name in ("iris", "iris-gateway") for suffix in ("", ".svc", ".svc.cluster.local")
]


async def test_every_name_of_a_service_works_with_and_without_a_port(with_rules):
    async with with_rules() as gateway:
        for host in (*IN_CLUSTER, OUTSIDE):
            assert await gateway.variant(host=host) == "stable"
            assert await gateway.variant(host=f"{host}:8080") == "stable"


async def test_a_cluster_local_service_has_its_names_inside_only(tmp_path, model_servers):
    local = isvc(labels={"networking.kserve.io/visibility": "cluster-local"})
    models = backend("iris-predictor", model_servers["stable"].port)
    async with serving(tmp_path, local, models, entrance) as gateway:
        for host in IN_CLUSTER:
            assert await gateway.variant(host=host) == "stable"
            assert await gateway.variant(host=f"{host}:{gateway.port}") == "stable"
        for host in (OUTSIDE, f"{OUTSIDE}:80", "iris-predictor-models.example.com", "iris.other", "127.0.0.1"):
            reply = await gateway.ask(host=host)
            assert (reply.status, json.loads(reply.body)["error"]["code"]) == (404, 404), host
            assert (await gateway.ask("/healthz", host=host)).status == 200


async def test_grpc_goes_to_the_grpc_port_beside_http(tmp_path, servers):
    http, grpc_ = await servers("http"), await servers("grpc", grpc=True)
    two_ports = [
        service("iris-predictor", http=80, grpc_port=9000),
        endpoints("iris-predictor", http.port, port_name="http"),
        endpoints("iris-predictor", grpc_.port, number=1, port_name="grpc-port"),
    ]
    async with serving(tmp_path, isvc(), two_ports, entrance) as gateway:
        assert await grpc_ask(gateway.port, INFER, authority=OUTSIDE) == "grpc"
        assert await grpc_ask(gateway.port, "/any.Service/Method", authority=OUTSIDE) == "grpc"
        assert await gateway.variant("/v2/models/iris/infer") == "http"
        assert json.loads((await http2(gateway.port, "/v1/models/iris")).body)["variant"] == "http"
        method, metadata, _ = grpc_.calls[0]
        assert (method, metadata["kserve-isvc-name"], metadata["kserve-isvc-namespace"]) == (INFER, "iris", "models")


async def test_a_model_of_one_grpc_port_gets_grpc_alone(tmp_path, servers):
    model = await servers("grpc", grpc=True)
    h2c = service("iris-predictor", h2c=80)
    models = [h2c, endpoints("iris-predictor", model.port, port_name="h2c")]
    async with serving(tmp_path, isvc(), models, entrance) as gateway:
        assert await grpc_ask(gateway.port, INFER) == "grpc"


async def test_grpc_with_a_transformer_that_speaks_none_goes_to_the_predictor(tmp_path, servers):
    transformer, predictor = await servers("transformer"), await servers("grpc", grpc=True)
    h2c = service("iris-predictor", h2c=80)
    models = [h2c, endpoints("iris-predictor", predictor.port, port_name="h2c")]
    models += backend("iris-transformer", transformer.port)
    async with serving(tmp_path, isvc(transformer={}), models, entrance) as gateway:
        assert await grpc_ask(gateway.port, INFER) == "grpc"
        assert await gateway.variant("/v1/models/iris:predict", **PREDICT) == "transformer"


async def test_rules_and_splits_hold_for_grpc(tmp_path, servers):
    stable, v2 = await servers("stable", grpc=True), await servers("v2", grpc=True)
    models = []
    for name, made in (("iris-predictor", stable), ("iris-v2-predictor", v2)):
        models += [service(name, h2c=80), endpoints(name, made.port, port_name="h2c")]
    testers = rule({"headers": [{"name": "x-tester", "value": "1"}]}, path("/special.Service"))
    made = policy(backends=BACKENDS, split=split(stable=1), rules=[testers])
    async with serving(tmp_path, isvc(), models, made, entrance) as gateway:
        assert await grpc_ask(gateway.port, INFER) == "stable"
        assert await grpc_ask(gateway.port, INFER, metadata=[("x-tester", "1")]) == "v2"
        assert await grpc_ask(gateway.port, "/special.Service/Do") == "v2"
        await gateway.edit(policy(backends=BACKENDS, split=split(stable=0)))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await grpc_ask(gateway.port, INFER)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_kubedls_predictors_share_by_their_weights_and_speak_both(tmp_path, servers):
    a, b, b_grpc = await servers("a"), await servers("b"), await servers("b-grpc", grpc=True)
    models = []
    for predictor, made in (("a", a), ("b", b)):
        name = f"mnist-{predictor}"
        models += [service(name, http=8080, grpc=9000), endpoints(name, made.port, port_name="http")]
    models.append(endpoints("mnist-b", b_grpc.port, number=1, port_name="grpc"))
    models.append(inference("mnist", a=0, b=100))
    opened = partial(entrance, target="mnist", kind="Inference")
    async with serving(tmp_path, models, opened, gateway_name="models/mnist") as gateway:
        assert await gateway.variant("/v2/models/mnist", host="mnist-models.example.com") == "b"
        assert await grpc_ask(gateway.port, INFER) == "b-grpc"
        await gateway.edit(inference("mnist", a=100, b=0))
        assert await gateway.variant("/v2/models/mnist") == "a"
