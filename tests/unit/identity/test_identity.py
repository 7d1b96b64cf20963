"""Who a peer is by what it brought, and what it may ask for."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xds.identity import AnyOf, CertificateAuthenticator, Denied, Peer, Unproven, authorize, bearer

DOMAIN = "cluster.local"
CERTIFICATES = CertificateAuthenticator(DOMAIN)

ALNUM = string.ascii_lowercase + string.digits
labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=6).map(".".join)
tokens = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


class Fixed:
    """Knows one token, or peers with any certificate name."""

    def __init__(self, gateway, *, token=None):
        self._gateway = gateway
        self._token = token

    async def identify(self, peer):
        brought = peer.token if self._token else peer.names
        if not brought:
            raise Unproven(f"nothing for {self._gateway}")
        if self._token and peer.token != self._token:
            raise Denied("UNAUTHENTICATED", f"wrong for {self._gateway}")
        return frozenset({self._gateway})


def peer(*names, token=None):
    return Peer(address="ipv4:127.0.0.1:1", token=token, names=names)


async def denied(authenticator, peer):
    with pytest.raises(Denied) as caught:
        await authenticator.identify(peer)
    assert str(caught.value) == caught.value.message
    return caught.value


# -- Names of certificates -----------------------------------------------------------------------------------------


@given(labels, names)
async def test_a_spiffe_name_is_a_gateway(namespace, name):
    found = await CERTIFICATES.identify(peer(f"spiffe://{DOMAIN}/ns/{namespace}/gateway/{name}"))
    assert found == {f"{namespace}/{name}"}


@given(labels, names)
async def test_a_dns_name_is_a_gateway(namespace, name):
    found = await CERTIFICATES.identify(peer(f"{name}.{namespace}.gateway.{DOMAIN}"))
    assert found == {f"{namespace}/{name}"}


@pytest.mark.parametrize(
    ("name", "gateway"),
    [
        ("iris.models.gateway.cluster.local", "models/iris"),
        ("IRIS.Models.Gateway.Cluster.Local", "models/iris"),
        ("a.b.models.gateway.cluster.local", "models/a.b"),
        ("a.gateway.cluster.local.models.gateway.cluster.local", "models/a.gateway.cluster.local"),
        ("a.gateway.gateway.cluster.local", "gateway/a"),
        (f"spiffe://cluster.local/ns/{'n' * 63}/gateway/{'g' * 253}", f"{'n' * 63}/{'g' * 253}"),
    ],
)
async def test_names_that_are_easily_misread(name, gateway):
    assert await CERTIFICATES.identify(peer(name)) == {gateway}


async def test_every_name_of_a_gateway_counts_and_others_are_passed_over():
    found = await CERTIFICATES.identify(
        peer("spiffe://cluster.local/ns/a/gateway/b", "www.example.com", "d.c.gateway.cluster.local", "spiffe://x/y")
    )
    assert found == {"a/b", "c/d"}


NO_GATEWAYS = [
    "spiffe://other.org/ns/models/gateway/iris",
    "spiffe://CLUSTER.LOCAL/ns/models/gateway/iris",
    "spiffe://cluster.local.evil.org/ns/models/gateway/iris",
    "spiffe://cluster.local/ns/models/sa/iris",
    "spiffe://cluster.local/ns/models/gateway/iris/",
    "spiffe://cluster.local/ns/models/gateway/iris?x",
    "spiffe://cluster.local/ns/models/gateway/iris\n",
    "spiffe://cluster.local/ns/models/gateway/",
    "spiffe://cluster.local/ns//gateway/iris",
    "spiffe://cluster.local/ns/mod.els/gateway/iris",
    "spiffe://cluster.local/ns/models/gateway/%69ris",
    "spiffe://cluster.local/ns/models/gateway/..",
    "spiffe://cluster.local/ns/models/gateway/Iris",
    f"spiffe://cluster.local/ns/models/gateway/{'g' * 254}",
    f"spiffe://cluster.local/ns/{'n' * 64}/gateway/iris",
    "https://cluster.local/ns/models/gateway/iris",
    "*.models.gateway.cluster.local",
    "iris.*.gateway.cluster.local",
    "iris.gateway.cluster.local",
    ".models.gateway.cluster.local",
    "iris..gateway.cluster.local",
    "-iris.models.gateway.cluster.local",
    "iris.models.gateway.cluster.local.",
    "iris.models.gateway.cluster.local\n",
    "iris.models.gateway.cluster.local\x00.evil.org",
    "iris.models.gateway.evilcluster.local",
    "iris.models.xgateway.cluster.local",
    "iri\u017f.models.gateway.cluster.local",
    "\u212ais.models.gateway.cluster.local",
    "gateway.cluster.local",
    "",
]


@pytest.mark.parametrize("name", NO_GATEWAYS)
async def test_other_names_are_no_gateway_and_the_forms_are_said(name):
    error = await denied(CERTIFICATES, peer(name))
    assert error.status == "UNAUTHENTICATED"
    assert not isinstance(error, Unproven)
    assert "spiffe://cluster.local/ns/<namespace>/gateway/<name>" in error.message
    assert "<name>.<namespace>.gateway.cluster.local" in error.message


@given(st.text() | st.text(ALNUM + "-.:/*%\x00\n"))
@example("spiffe://cluster.local/ns/a/gateway/b\u2028")
async def test_no_name_is_a_gateway_that_does_not_spell_it(name):
    for text in (name, f"{name}.gateway.{DOMAIN}", f"spiffe://{DOMAIN}/{name}", f"spiffe://{DOMAIN}/ns/{name}"):
        try:
            found = await CERTIFICATES.identify(peer(text))
        except Denied:
            continue
        ((namespace, gateway),) = [found_one.split("/") for found_one in found]
        assert text in {
            f"spiffe://{DOMAIN}/ns/{namespace}/gateway/{gateway}",
            *([text] if text.lower() == f"{gateway}.{namespace}.gateway.{DOMAIN}" else []),
        }


async def test_a_peer_without_certificate_proves_nothing():
    assert isinstance(await denied(CERTIFICATES, peer(token="secret")), Unproven)


@pytest.mark.parametrize("domain", ["", "Cluster.Local", "a/b", "a..b", ".a", "a b", "a" * 254, "*"])
def test_a_trust_domain_that_is_none_is_said(domain):
    with pytest.raises(ValueError, match="trust domain"):
        CertificateAuthenticator(domain)


# -- Bearer tokens -------------------------------------------------------------------------------------------------


@given(tokens, st.sampled_from(["Bearer", "bearer", "BEARER", "bEaReR"]), st.integers(1, 3))
def test_a_bearer_token_is_read_whatever_the_case_of_its_scheme(token, scheme, spaces):
    assert bearer([("user-agent", "x"), ("authorization", scheme + " " * spaces + token)]) == token


def test_no_authorization_is_no_token():
    assert bearer([]) is None
    assert bearer([("user-agent", "Bearer x"), ("x-authorization", "Bearer x")]) is None


SECRET = "s3cr3t-t0k3n"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        SECRET,
        f"Basic {SECRET}",
        f"Bearer{SECRET}",
        f" Bearer {SECRET}",
        f"Bearer {SECRET} ",
        f"Bearer {SECRET} {SECRET}",
        f"Bearer {SECRET},Bearer {SECRET}",
        f"Bearer\t{SECRET}",
        f"Bearer {SECRET}\n",
        f"Bearer {SECRET}\u00e9",
        f"Bearer {SECRET}".encode(),
    ],
)
def test_a_malformed_authorization_is_refused_and_not_repeated(value):
    with pytest.raises(Denied, match="Bearer <token>") as caught:
        bearer([("authorization", value)])
    assert caught.value.status == "UNAUTHENTICATED"
    assert SECRET not in repr(caught.value)


def test_two_authorizations_are_refused_and_not_repeated():
    with pytest.raises(Denied, match="2 times") as caught:
        bearer([("authorization", f"Bearer {SECRET}"), ("Authorization", f"Bearer {SECRET}")])
    assert SECRET not in repr(caught.value)


@given(st.text() | st.binary())
def test_any_authorization_is_a_token_or_refused(value):
    try:
        token = bearer([("authorization", value)])
    except Denied:
        return
    assert value.endswith(token)
    assert " " not in token


def test_a_peer_does_not_print_its_token():
    assert SECRET not in f"{peer('a', token=SECRET)!r} {peer('a', token=SECRET)}"


# -- Several ways, and what is allowed -----------------------------------------------------------------------------

BOTH = AnyOf([Fixed("by/token", token="right"), Fixed("by/other", token="other"), Fixed("by/certificate")])


@pytest.mark.parametrize(
    ("who", "gateway"),
    [
        (peer(token="right"), "by/token"),
        (peer(token="other"), "by/other"),
        (peer("name"), "by/certificate"),
        (peer("name", token="right"), "by/token"),
    ],
)
async def test_a_peer_is_identified_by_any(who, gateway):
    assert await BOTH.identify(who) == {gateway}


async def test_a_wrong_token_is_refused_beside_a_right_certificate():
    error = await denied(BOTH, peer("name", token="wrong"))
    assert error.message == "wrong for by/token; wrong for by/other"
    assert not isinstance(error, Unproven)


async def test_an_empty_token_is_a_wrong_token():
    assert (await denied(AnyOf([Fixed("by/certificate")]), peer("name", token=""))).status == "UNAUTHENTICATED"


async def test_a_peer_that_brings_nothing_is_told_all_it_could_bring():
    error = await denied(BOTH, peer())
    assert isinstance(error, Unproven)
    assert error.message == "nothing for by/token; nothing for by/other; nothing for by/certificate"


async def test_without_authenticators_nobody_is_known():
    assert (await denied(AnyOf([]), peer("name"))).message == "no peer is known"


def test_a_peer_may_ask_for_its_own_gateways_only():
    authorize(frozenset({"models/a", "models/b"}), "models/b")
    with pytest.raises(Denied) as caught:
        authorize(frozenset({"models/a", "models/b"}), "models/c")
    assert caught.value.status == "PERMISSION_DENIED"
    assert caught.value.message == (
        "node.cluster is 'models/c', but this peer is identified for 'models/a', 'models/b'"
    )


@pytest.mark.parametrize("asked", ["", "models", "models/", "models/a/", "models/A", "models/a\n"])
def test_what_only_looks_like_the_own_gateway_is_refused(asked):
    with pytest.raises(Denied):
        authorize(frozenset({"models/a"}), asked)


def test_a_refusal_lists_few_gateways():
    with pytest.raises(Denied, match=r"'m/0', 'm/1', 'm/2' and 7 more$"):
        authorize(frozenset(f"m/{number}" for number in range(10)), "m/x")
    with pytest.raises(Denied, match="no gateway"):
        authorize(frozenset(), "m/x")
