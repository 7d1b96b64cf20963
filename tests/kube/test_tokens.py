"""Tokens of ServiceAccounts, as a kubelet projects them, reviewed by a real kube-apiserver; the authority's Secret."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.support import chart
from tests.support.account import chart_account
from tests.support.wait import wait_until
from xds.identity import Denied, Peer
from xdserve.kube.authority import Authority
from xdserve.kube.calls import Calls
from xdserve.kube.tokens import GOOD_SECONDS, ReviewError, TokenReviews


@pytest_asyncio.fixture
async def calls(apiserver, tmp_path):
    """By xdserve's account, with the chart's roles."""
    kubeconfig = chart_account(apiserver, tmp_path / "own")
    async with await apiserver.client(kubeconfig) as client:
        yield Calls(client)


@pytest.fixture
def reviews(calls, namespace):
    table = {(namespace, "iris-gateway"): f"{namespace}/iris"}
    return TokenReviews(calls, lambda *account: table.get(account))


def account(apiserver, namespace, name):
    apiserver.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})


def peer(token):
    return Peer(address="ipv4:10.0.0.1:1", token=token)


async def test_a_pods_token_is_its_gateways(apiserver, namespace, reviews):
    account(apiserver, namespace, "iris-gateway")
    token = apiserver.account_token(namespace, "iris-gateway", audiences=["xdserve"])
    assert await reviews.identify(peer(token)) == {f"{namespace}/iris"}


async def test_a_token_for_the_apiserver_opens_nothing_here(apiserver, namespace, reviews):
    account(apiserver, namespace, "iris-gateway")
    for audiences in ([], ["vault"]):
        token = apiserver.account_token(namespace, "iris-gateway", audiences=audiences)
        with pytest.raises(Denied) as denied:
            await reviews.identify(peer(token))
        assert denied.value.status == "UNAUTHENTICATED"


async def test_another_accounts_token_is_no_gateways(apiserver, namespace, reviews):
    account(apiserver, namespace, "default")
    token = apiserver.account_token(namespace, "default", audiences=["xdserve"])
    with pytest.raises(Denied) as denied:
        await reviews.identify(peer(token))
    assert denied.value.status == "PERMISSION_DENIED"


async def test_a_token_that_was_tampered_with(apiserver, namespace, reviews):
    account(apiserver, namespace, "iris-gateway")
    token = apiserver.account_token(namespace, "iris-gateway", audiences=["xdserve"])
    head, claims, signature = token.split(".")
    other = ("A" if signature[0] != "A" else "B") + signature[1:]
    with pytest.raises(Denied):
        await reviews.identify(peer(".".join((head, claims, other))))


async def test_a_token_ends_with_its_service_account(apiserver, namespace, calls):
    time = [0.0]
    reviews = TokenReviews(calls, lambda *_: "models/iris", clock=lambda: time[0])
    account(apiserver, namespace, "iris-gateway")
    token = apiserver.account_token(namespace, "iris-gateway", audiences=["xdserve"])
    assert await reviews.identify(peer(token))
    apiserver.call("DELETE", f"/api/v1/namespaces/{namespace}/serviceaccounts/iris-gateway")

    async def refused():
        time[0] += GOOD_SECONDS
        try:
            return not await reviews.identify(peer(token))
        except Denied:
            return True

    # The apiserver too remembers, for ten seconds.
    await wait_until(refused, 30, "the token to be refused", 0.2)


async def test_who_may_not_ask_condemns_nobody(apiserver, namespace, tmp_path):
    """Without the right to make TokenReviews it cannot be told whose a token is."""
    account(apiserver, namespace, "iris-gateway")
    own = apiserver.account_token(namespace, "iris-gateway")
    kubeconfig = apiserver.write_kubeconfig(tmp_path / "kubeconfig", token=own)
    async with await apiserver.client(kubeconfig) as client:
        reviews = TokenReviews(Calls(client), lambda *_: "models/iris")
        token = apiserver.account_token(namespace, "iris-gateway", audiences=["xdserve"])
        with pytest.raises(ReviewError, match="403"):
            await reviews.identify(peer(token))


async def test_replicas_share_one_authority_in_the_secret_of_the_chart(apiserver, calls, tmp_path):
    path = f"/api/v1/namespaces/{chart.NAMESPACE}/secrets/xdserve-ca"
    apiserver.call("PUT", path, apiserver.call("GET", path) | {"data": {}})
    made = [
        Authority(calls, chart.NAMESPACE, ["xdserve.system.svc"], tmp_path / name, held=lambda: True) for name in "ab"
    ]
    for one in made:
        await one.ready()
        await one.look()
    assert made[0].bundle == made[1].bundle
    assert made[0].certificate.read_text() == made[1].certificate.read_text()
    found = apiserver.call("GET", path)
    assert set(found["data"]) == {"ca.crt", "tls.crt", "tls.key", "authorities.crt", "authorities.key"}
    assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


async def test_without_a_secret_and_the_right_to_make_one_it_says_so(apiserver, namespace, calls, tmp_path):
    authority = Authority(calls, namespace, ["xdserve.system.svc"], tmp_path / "a", held=lambda: True)
    assert not await authority.look()
