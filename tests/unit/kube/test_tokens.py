"""TokenReview against an apiserver of a few lines: what is asked, what is remembered, and for how long."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wait import wait_until
from xds.identity import Denied, Peer, Unproven
from xdserve.kube.calls import CallError
from xdserve.kube.tokens import BAD_SECONDS, GOOD_SECONDS, ReviewError, TokenReviews

NOW = 1_000_000.0
IRIS = "system:serviceaccount:models:iris-gateway"


class Apiserver:
    """Knows tokens by what `users` says; keeps what it was asked."""

    def __init__(self):
        self.users = {}
        self.asked = []
        self.fails = None
        self.time = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.audiences = ["xdserve"]

    async def __call__(self, method, path, body=None, **rest):
        self.asked.append(body["spec"])
        await self.gate.wait()
        if self.fails:
            raise self.fails
        user = self.users.get(body["spec"]["token"])
        if user is None:
            return {"status": {"authenticated": False, "error": "it is wrong"}}
        return {"status": {"authenticated": True, "user": {"username": user}, "audiences": self.audiences}}


GATEWAYS = {("models", "iris-gateway"): "models/iris", ("models", "wine-gateway"): "models/wine"}


@pytest.fixture
def apiserver():
    return Apiserver()


@pytest.fixture
def reviews(apiserver):
    return TokenReviews(
        apiserver,
        lambda *account: GATEWAYS.get(account),
        clock=lambda: apiserver.time,
        now=lambda: NOW + apiserver.time,
    )


def token(*, aud=("xdserve",), exp=NOW + 3600, salt="", sub=IRIS):
    claims = {"aud": list(aud) if isinstance(aud, tuple) else aud, "exp": exp, "salt": salt, "sub": sub}
    parts = [b"{}", json.dumps(claims).encode(), b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def peer(text):
    return Peer(address="ipv4:10.0.0.1:1", token=text)


async def test_a_gateways_token(apiserver, reviews):
    apiserver.users[token()] = IRIS
    assert await reviews.identify(peer(token())) == {"models/iris"}
    assert apiserver.asked == [{"token": token(), "audiences": ["xdserve"]}]


async def test_an_answer_is_remembered_for_a_minute(apiserver, reviews):
    apiserver.users[token()] = IRIS
    for _ in range(3):
        await reviews.identify(peer(token()))
    apiserver.time = GOOD_SECONDS - 1
    await reviews.identify(peer(token()))
    assert len(apiserver.asked) == 1
    apiserver.time = GOOD_SECONDS
    del apiserver.users[token()]
    with pytest.raises(Denied):
        await reviews.identify(peer(token()))
    assert len(apiserver.asked) == 2


async def test_no_answer_outlives_its_token(apiserver, reviews):
    short = token(exp=NOW + 10)
    apiserver.users[short] = IRIS
    await reviews.identify(peer(short))
    apiserver.time = 11
    with pytest.raises(Denied, match="not a valid one"):
        await reviews.identify(peer(short))
    assert len(apiserver.asked) == 1  # by its own words it is over


async def test_a_refusal_is_remembered_for_a_moment(apiserver, reviews):
    for _ in range(2):
        with pytest.raises(Denied) as denied:
            await reviews.identify(peer(token()))
        assert denied.value.status == "UNAUTHENTICATED"
        assert token() not in denied.value.message
    assert len(apiserver.asked) == 1
    apiserver.users[token()] = IRIS
    apiserver.time = BAD_SECONDS
    assert await reviews.identify(peer(token())) == {"models/iris"}


@pytest.mark.parametrize("user", ["system:serviceaccount:models:default", "system:serviceaccount:other:iris-gateway"])
async def test_a_good_token_of_no_gateway(apiserver, reviews, user):
    """By the apiserver's word, whatever the token says; and by its own word unasked."""
    for text, asked in ((token(), 1), (token(sub=user), 1)):
        apiserver.users[text] = user
        with pytest.raises(Denied, match=f"{user.split(':')[3]} is no gateway's") as denied:
            await reviews.identify(peer(text))
        assert denied.value.status == "PERMISSION_DENIED"
        assert len(apiserver.asked) == asked


@pytest.mark.parametrize(
    "user", ["jane", "system:node:a", "system:serviceaccount:", "system:serviceaccount:a", None, 7]
)
async def test_a_good_token_of_no_service_account(apiserver, reviews, user):
    apiserver.users[token()] = user
    with pytest.raises(Denied):
        await reviews.identify(peer(token()))


@pytest.mark.parametrize("audiences", [[], ["https://kubernetes.default.svc"]])
async def test_a_token_that_is_not_for_us_by_the_apiservers_word(apiserver, reviews, audiences):
    """An authenticator that knows nothing of audiences names none."""
    apiserver.users[token()] = IRIS
    apiserver.audiences = audiences
    with pytest.raises(Denied):
        await reviews.identify(peer(token()))


WRONG = {
    "of another audience": token(aud=("https://kubernetes.default.svc",)),
    "of no audience": token(aud=None),
    "expired": token(exp=NOW),
    "without an end": token(exp=None),
    "of a wrong end": token(exp=True),
    "in two parts": "a.b",
    "no base64": "a.ä.c",
    "no JSON": "a.b.c",
    "no map": "e30.W10.x",
    "deep": "e30." + base64.urlsafe_b64encode(b"[" * 9000).decode() + ".x",
    "huge": token(salt="x" * 20_000),
    "of no ServiceAccount": token(sub="jane"),
    "of nobody": token(sub=None),
    "of a number": token(sub=7),
    "of half an account": token(sub="system:serviceaccount:models"),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
async def test_what_is_plainly_no_token_for_us_costs_no_request(apiserver, reviews, text):
    apiserver.users[text] = IRIS
    with pytest.raises(Denied):
        await reviews.identify(peer(text))
    assert apiserver.asked == []


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200))
def test_any_text_is_refused(text):
    apiserver = Apiserver()
    reviews = TokenReviews(apiserver, lambda *_: None, now=lambda: NOW)
    with pytest.raises(Denied):
        asyncio.run(reviews.identify(peer(text)))


async def test_no_token_at_all(reviews):
    with pytest.raises(Unproven):
        await reviews.identify(peer(None))


@pytest.mark.parametrize("error", [CallError(0, "gone"), CallError(403, "forbidden"), CallError(500, "oh")])
async def test_an_apiserver_that_does_not_answer_condemns_nobody(apiserver, reviews, error):
    apiserver.users[token()] = IRIS
    apiserver.fails = error
    with pytest.raises(ReviewError):
        await reviews.identify(peer(token()))
    apiserver.fails = None
    assert await reviews.identify(peer(token())) == {"models/iris"}


async def test_what_is_remembered_serves_while_the_apiserver_is_away(apiserver, reviews):
    apiserver.users[token()] = IRIS
    await reviews.identify(peer(token()))
    apiserver.fails = CallError(0, "gone")
    assert await reviews.identify(peer(token())) == {"models/iris"}


async def test_a_good_answer_counts_to_the_tokens_end_while_the_apiserver_is_away(apiserver, reviews):
    apiserver.users[token()] = IRIS
    await reviews.identify(peer(token()))
    apiserver.time = GOOD_SECONDS * 2
    for away in (CallError(0, "gone"), CallError(503, "no leader"), CallError(429, "too many requests")):
        apiserver.fails = away
        assert await reviews.identify(peer(token())) == {"models/iris"}
    apiserver.fails = CallError(403, "forbidden")
    with pytest.raises(ReviewError):
        await reviews.identify(peer(token()))
    apiserver.fails, apiserver.time = CallError(0, "gone"), 3600.0
    with pytest.raises(Denied):
        await reviews.identify(peer(token()))


async def test_a_token_that_was_withdrawn_counts_no_more_when_the_apiserver_is_back(apiserver, reviews):
    apiserver.users[token()] = IRIS
    await reviews.identify(peer(token()))
    apiserver.time = GOOD_SECONDS * 2
    del apiserver.users[token()]
    with pytest.raises(Denied):
        await reviews.identify(peer(token()))
    apiserver.fails, apiserver.time = CallError(0, "gone"), GOOD_SECONDS * 3
    with pytest.raises(ReviewError):
        await reviews.identify(peer(token()))


async def test_one_question_serves_all_who_wait_for_its_answer(apiserver, reviews):
    apiserver.users[token()] = IRIS
    apiserver.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(reviews.identify(peer(token()))) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.pop(0).cancel()
        apiserver.gate.set()
    assert {task.result() for task in waiting} == {frozenset({"models/iris"})}
    assert len(apiserver.asked) == 1


async def test_memory_is_bounded(apiserver, reviews, monkeypatch):
    monkeypatch.setattr("xdserve.kube.tokens._REMEMBERED", 3)
    texts = [token(salt=str(number)) for number in range(10)]
    for text in texts:
        apiserver.users[text] = IRIS
        await reviews.identify(peer(text))
    assert len(reviews._good) == 3
    await reviews.identify(peer(texts[-1]))
    assert len(apiserver.asked) == 10


async def refused(reviews, text):
    with pytest.raises(Denied):
        await reviews.identify(peer(text))


async def test_bad_answers_push_out_no_good_ones(apiserver, reviews, monkeypatch):
    monkeypatch.setattr("xdserve.kube.tokens._REMEMBERED_BAD", 3)
    apiserver.users[token()] = IRIS
    await reviews.identify(peer(token()))
    for number in range(10):
        await refused(reviews, token(salt=str(number)))
    assert len(reviews._bad) == 3
    asked = len(apiserver.asked)
    assert await reviews.identify(peer(token())) == {"models/iris"}
    assert len(apiserver.asked) == asked


async def test_strangers_wait_in_a_bounded_queue_and_apart_from_who_was_good(apiserver, reviews, monkeypatch):
    monkeypatch.setattr("xdserve.kube.tokens._WAITING", 40)
    apiserver.users[token()] = IRIS
    await reviews.identify(peer(token()))
    apiserver.time = GOOD_SECONDS
    apiserver.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        strangers = [tasks.create_task(refused(reviews, token(salt=str(number)))) for number in range(40)]
        await wait_until(lambda: len(reviews._asked) == 40)
        with pytest.raises(ReviewError, match="too many"):
            await reviews.identify(peer(token(salt="one more")))
        known = tasks.create_task(reviews.identify(peer(token())))
        await wait_until(lambda: apiserver.asked[-1]["token"] == token())  # it has not waited for any of them
        apiserver.gate.set()
    assert known.result() == {"models/iris"}
    assert all(task.done() for task in strangers)
    assert not reviews._asked


async def test_who_poses_as_one_gateway_holds_up_no_other(apiserver, reviews, monkeypatch):
    monkeypatch.setattr("xdserve.kube.tokens._WAITING_OF_ONE", 10)
    wine = token(sub=IRIS.replace("iris", "wine"))
    apiserver.users[wine] = IRIS.replace("iris", "wine")
    apiserver.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(refused(reviews, token(salt=str(number))))
        await wait_until(lambda: len(reviews._asked) == 10)
        with pytest.raises(ReviewError, match="too many"):
            await reviews.identify(peer(token(salt="one more")))
        other = tasks.create_task(reviews.identify(peer(wine)))
        apiserver.gate.set()
    assert other.result() == {"models/wine"}
    assert not reviews._waiting


async def test_a_review_that_nobody_waits_for_any_more_ends(apiserver, reviews, monkeypatch):
    monkeypatch.setattr("xdserve.kube.tokens.REVIEW_SECONDS", 0.05)
    apiserver.users[token()] = IRIS
    await reviews.identify(peer(token()))
    apiserver.time = GOOD_SECONDS
    apiserver.gate.clear()
    with pytest.raises(ReviewError, match="in time"):
        await reviews.identify(peer(token(salt="new")))
    assert await reviews.identify(peer(token())) == {"models/iris"}  # good before, and the apiserver says nothing
    assert not reviews._asked


@pytest.mark.parametrize("exp", ["1" + "0" * 400, "1e999", "1e300", "-1", "NaN", "true", '"soon"'])
async def test_an_end_that_no_clock_reaches_is_none(apiserver, reviews, exp):
    """A stranger's token, which is told so and counted as one."""
    claims = f'{{"aud": "xdserve", "sub": "{IRIS}", "exp": {exp}}}'
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in ("{}", claims, "signature")]
    with pytest.raises(Denied):
        await reviews.identify(peer(".".join(parts)))
    assert not apiserver.asked
