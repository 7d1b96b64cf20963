"""No spelling of a path goes around a rule, and no header of a client's tells a model what only proxies may say."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from functools import partial
from posixpath import normpath
from random import Random
from urllib.parse import unquote_to_bytes

import pytest
import pytest_asyncio

from tests.support.documents import backend, endpoints, entrance, isvc, policy, service, split, to_service
from tests.support.models import grpc_ask, grpc_model
from tests.support.plane import serving
from tests.support.requests import http2
from tests.support.stubs import stub_server
from translator.planners.options import Options

KIB, MIB = 1 << 10, 1 << 20
SIZES = (0, KIB, MIB)
BACKENDS = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]

SIGNS = [*":@,;=+$!&'()*[]|^`{}\"<>", *" %#?é"]
"""All that has more than one spelling, or one that is not the character itself."""
NEVER_RAW = set(" %#?é")
"""A path holds these as escapes alone: a URL has no other way, or Envoy answers 400."""


def escapes(character):
    """A character's escapes, with their digits in both cases and in mixed ones."""
    upper, lower = (form("".join(f"%{byte:02x}" for byte in character.encode())) for form in (str.upper, str.lower))
    return list(dict.fromkeys([upper, lower, upper[:2] + lower[2:], lower[:3] + upper[3:]]))


def spellings(character):
    """All that a client may write for a character."""
    return escapes(character) if character in NEVER_RAW else [character, *escapes(character)]


def rule(name, value, kind="Exact"):
    return {"name": name, "matches": [{"path": {"type": kind, "value": value}}], "split": split(v2=1)}


def variant(name):
    """A model that answers every path, which aiohttp does not."""
    body = json.dumps({"variant": name}).encode()
    answer = b"HTTP/1.1 200 OK\r\nx-variant: %b\r\ncontent-length: %d\r\n\r\n%b" % (name.encode(), len(body), body)

    async def handle(_, writer):
        writer.write(answer)

    return stub_server(handle)


@pytest_asyncio.fixture
async def scene(tmp_path):
    """Starts a gateway that sends to `stable` what no rule sends to `v2`, and `:explain` to `explainer`."""

    @asynccontextmanager
    async def start(*rules):
        async with variant("stable") as stable, variant("v2") as v2, variant("explainer") as explainer:
            models = [*backend("iris-predictor", stable), *backend("iris-v2-predictor", v2)]
            models += backend("iris-explainer", explainer)
            made = policy(backends=BACKENDS, split=split(stable=1), rules=list(rules))
            async with serving(tmp_path, isvc(explainer={}), models, made, entrance) as gateway:
                yield gateway

    return start


async def one(gateway, path):
    """The variant that answers over HTTP/1."""
    return (await gateway.ask(path)).header("x-variant")


async def two(gateway, path):
    """The same over HTTP/2."""
    return json.loads((await http2(gateway.port, path)).body)["variant"]


async def status(gateway, path):
    """The status over both, or the two that there are."""
    first, second = (await gateway.ask(path)).status, (await http2(gateway.port, path)).status
    return first if first == second else (first, second)


async def who(gateway, paths, ask=one):
    """The variant that answers, by path."""
    found, left = {}, iter(paths)

    async def work():
        for path in left:
            found[path] = await ask(gateway, path)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(work())
    return found


async def check(gateway, taken, passed, ask=one):
    """Rules take the first paths, and none of the others."""
    assert await who(gateway, [*taken, *passed], ask) == dict.fromkeys(taken, "v2") | dict.fromkeys(passed, "stable")


# -- Every sign in every spelling ------------------------------------------------------------------------------------


def rules_of_signs():
    """For each sign a rule of a whole path, one of a prefix, and one that is written in escapes."""
    for number, sign in enumerate(SIGNS):
        written = spellings(sign)[0]
        yield rule(f"exact-{number}", f"/exact{number}/a{written}b")
        yield rule(f"below-{number}", f"/below{number}/a{written}b", "PathPrefix")
        yield rule(f"coded-{number}", f"/coded{number}/a{escapes(sign)[-1]}b")


def paths_of(number, sign):
    """All spellings of the paths that the rules of a sign mean, and other paths."""
    exact, below, coded = (f"/{kind}{number}" for kind in ("exact", "below", "coded"))
    said = [f"/{a}{spelled}{b}" for spelled in spellings(sign) for a in ("a", "%61") for b in ("b", "%62")]
    others = [f"/a{spelled}b" for spelled in spellings(SIGNS[number - 1])]
    others += [f"/a{escape.replace('%', '%25')}b" for escape in escapes(sign)]  # it is decoded once
    others += [f"{text}x" for text in said]
    taken = [f"{rules}{text}" for rules in (exact, below, coded) for text in said]
    taken += [f"{below}{text}{more}" for text in said for more in ("/", "/c:d", "/c%3Ad?q", "?q")]
    passed = [f"{rules}{text}" for rules in (exact, below, coded) for text in others]
    passed += [f"{rules}{text}{more}" for rules in (exact, coded) for text in said for more in ("/", "/c")]
    return taken, passed


@pytest.mark.parametrize("ask", [one, two])
async def test_a_rule_means_a_sign_in_all_its_spellings(scene, ask):
    async with scene(*rules_of_signs()) as gateway:
        for number, sign in enumerate(SIGNS):
            await check(gateway, *paths_of(number, sign), ask)


@pytest.mark.parametrize("ask", [one, two])
async def test_letters_digits_and_four_signs_have_one_spelling(scene, ask):
    async with scene(rule("plain", "/a1-._~Z"), rule("coded", "/b/%61%31%2D%2e%5F%7e%5a", "PathPrefix")) as gateway:
        spelled = ["a1-._~Z", "%611%2D._~Z", "%61%31%2d%2E%5F%7E%5A", "a%31-%2e%5f%7eZ"]
        taken = [f"/{text}" for text in spelled] + [f"/b/{text}{more}" for text in spelled for more in ("", "/x:y")]
        await check(gateway, taken, ["/A1-._~Z", "/a1-._~z", "/a1-._~", "/%2561", "/b/a1-._~Zx"], ask)


async def test_a_rule_in_escapes_means_the_characters(scene):
    async with scene(
        rule("team", "/%40team"), rule("word", "/%61b%3a", "PathPrefix"), rule("both", "/%2540")
    ) as gateway:
        taken = ["/@team", "/%40team", "/ab:", "/ab%3A/c", "/%2540", "/%25%34%30"]
        await check(gateway, taken, ["/%2540team", "/%40", "/@", "/ab%253A", "/%252540"])


async def test_a_regular_expression_sees_the_path_as_it_was_sent(scene):
    rules = [rule("raw", "/a:b", "RegularExpression"), rule("both", "/c(:|%3[Aa])d", "RegularExpression")]
    async with scene(*rules) as gateway:
        taken = ["/a:b", "/%61:%62", "/x/../a:b?q", "/c:d", "/c%3Ad", "/%63%3ad"]
        await check(gateway, taken, ["/a%3Ab", "/a%3ab", "/c%253Ad", "/a:bc"])


async def test_a_percent_sign_that_begins_no_escape_is_one_that_is_escaped(scene):
    assert unquote_to_bytes("/100%") == unquote_to_bytes("/100%25")
    async with scene(rule("end", "/100%25"), rule("within", "/5%25zz", "PathPrefix")) as gateway:
        await check(gateway, ["/100%25", "/100%", "/5%25zz", "/5%zz", "/5%zz/c"], ["/100%2525"])


async def test_control_characters_in_paths_are_refused_where_rules_look_at_paths(scene):
    async with scene(rule("admin", "/admin")) as gateway:
        escaped = [escape for code in (*range(32), 127) for escape in escapes(chr(code))]
        refused = [path for escape in escaped for path in (f"/admin{escape}", f"/a{escape}/b?q")]
        assert set((await who(gateway, refused, status)).values()) == {400}
        await check(gateway, ["/admin?q=%0A"], ["/admin%250A", "/other?q=%0A"])


# -- Any path --------------------------------------------------------------------------------------------------------

PIECES = [*"abcXYZ019", *SIGNS, "/", "/", "/", "/b", "v1.2", "models", "-", "_", "~"]


def meaning(path):
    """The path that a server serves after it decodes it, as Python's library does it, and resolves."""
    text = unquote_to_bytes(path.partition("?")[0]).decode("latin-1")
    resolved = normpath(text).replace("//", "/")
    return resolved + "/" if text.endswith(("/", "/.", "/..")) and resolved != "/" else resolved


def spell(luck, text):
    """A path in one of its spellings, with detours."""
    spelled = "".join(_spell(luck, character) for character in text)
    detours = {"/": luck.choice(["//", "/./", "/x/../", "/%2e/", "/y/%2E./", "/"])}
    at = luck.randrange(len(spelled))
    return spelled[:at] + detours.get(spelled[at], spelled[at]) + spelled[at + 1 :]


def _spell(luck, character):
    if character == "/" or (character == "%" and luck.random() < 0.3):
        return character
    return luck.choice([character] * 2 + escapes(character) if character not in NEVER_RAW else escapes(character))


def changed(luck, text):
    """A path near by."""
    at = luck.randint(1, len(text))
    return luck.choice([text[:at] + luck.choice(PIECES) + text[at:], text[:at] + text[at + 1 :], f"{text}/c"])


def any_path(luck):
    text = "/" + "".join(luck.choices(PIECES, k=luck.randint(2, 9)))
    while "//" in text:
        text = text.replace("//", "/")
    return text


def as_rule(luck, text):
    """How somebody writes it in a rule: signs raw or as escapes, the rest as it is."""
    return "".join(_spell(luck, character) if character in SIGNS else character for character in text)


def takes(kind, value, path):
    """True if a rule means a path, by Python's library alone."""
    ruled, asked = unquote_to_bytes(value).decode("latin-1"), meaning(path)
    return asked == ruled if kind == "Exact" else f"{asked}/".startswith(ruled.rstrip("/") + "/")


async def test_rules_mean_what_servers_make_of_paths(scene):
    luck = Random(11)
    texts = [any_path(luck) for _ in range(40)]
    rules = [(luck.choice(["Exact", "PathPrefix"]), as_rule(luck, text)) for text in texts]
    asked = (spell(luck, luck.choice([str, partial(changed, luck)])(luck.choice(texts))) for _ in range(1500))
    served = [path for path in asked if not re.search("%([01].|7f|2f|5c)", path, re.IGNORECASE)]
    expected = {path: any(takes(kind, value, path) for kind, value in rules) for path in served}
    assert 0.2 < sum(expected.values()) / len(expected) < 0.8
    async with scene(*(rule(f"r{number}", value, kind) for number, (kind, value) in enumerate(rules))) as gateway:
        found = await who(gateway, expected)
        assert {path: answered == "v2" for path, answered in found.items()} == expected


# -- :explain --------------------------------------------------------------------------------------------------------

NAMES = ["iris", "llama3.2", "%6clama3%2E2", "a-b_c~d", "org%20model", "a:b", "%E2%82%AC"]
EXPLAINS = [":explain", "%3Aexplain", "%3aexplain", ":%65xplain", "%3Aexpl%61in", ":%65%78%70%6c%61%69%6e"]


@pytest.mark.parametrize("ask", [one, two])
async def test_explain_goes_to_the_explainer_in_all_its_spellings(scene, ask):
    async with scene(rule("mine", "/v1/models/mine:explain")) as gateway:
        taken = [f"/v1/models/{name}{explain}" for name in NAMES for explain in EXPLAINS]
        taken += ["/v1/models/iris:explain?x=/y", "//v1/./models/x/../iris%3Aexplain"]
        passed = [
            f"/v1/models/iris{said}"
            for said in ("", ":predict", ":explainer", ":explain/", ":explain/x", "%253Aexplain")
        ]
        passed += ["/v2/models/iris:explain", "/v1/models/a/b:explain", "/v1/models:explain", "/v1/models/:explain"]
        ruled = [f"/v1/models/mine{explain}" for explain in EXPLAINS]
        expected = dict.fromkeys(taken, "explainer") | dict.fromkeys(passed, "stable") | dict.fromkeys(ruled, "v2")
        assert await who(gateway, expected, ask) == expected


@pytest.mark.parametrize("size", SIZES)
async def test_bodies_follow_the_rules_of_their_paths(scene, size):
    async with scene(rule("predict", "/v1/models/iris:predict")) as gateway:
        for spelled in (":", "%3A", "%3a"):
            how = {"method": "POST", "body": bytes(size)}
            assert await gateway.variant(f"/v1/models/iris{spelled}predict", **how) == "v2"
            assert await gateway.variant(f"/v1/models/iris{spelled}explain", **how) == "explainer"


# -- Headers that only proxies may set -------------------------------------------------------------------------------

OF_PROXIES = ["Forwarded", "X-Forwarded-Host", "x-forwarded-port", "x-forwarded-prefix", "X-Real-IP"]
OF_NOBODY = [
    "X-Original-URL", "x-rewrite-url", "Knative-Serving-Revision", "knative-serving-namespace", "knative-serving-x",
    "K-Network-Hash",
]  # fmt: skip


@pytest.mark.parametrize(("hops", "reaching"), [(0, []), (1, OF_PROXIES)])
@pytest.mark.parametrize("size", SIZES)
async def test_headers_that_only_proxies_may_set(tmp_path, model_servers, hops, reaching, size):
    models = backend("iris-predictor", model_servers["stable"].port)
    said = [(name, f"forged-{turn}") for name in (*OF_PROXIES, *OF_NOBODY) for turn in range(2)]
    how = {"method": "POST", "body": b"x" * min(size, 16 * KIB)}
    async with serving(tmp_path, isvc(), models, entrance, options=Options(trusted_hops=hops)) as gateway:
        first = await gateway.ask("/echo", method="POST", body=b"x" * size, headers=said)
        second = await http2(gateway.port, "/echo", headers=[(name.lower(), value) for name, value in said], **how)
        for reply in (first, second):
            reached = json.loads(reply.body)["headers"]
            assert {name for name, value in reached.items() if "forged" in value} == {name.lower() for name in reaching}


@pytest.mark.parametrize(("hops", "reaching"), [(0, []), (1, OF_PROXIES)])
async def test_the_same_headers_of_grpc(tmp_path, hops, reaching):
    async with grpc_model("model") as model:
        made = [service("iris-predictor", h2c=80), endpoints("iris-predictor", model.port, port_name="h2c")]
        async with serving(tmp_path, isvc(), made, entrance, options=Options(trusted_hops=hops)) as gateway:
            said = [(name.lower(), "forged") for name in (*OF_PROXIES, *OF_NOBODY)]
            assert await grpc_ask(gateway.port, metadata=said) == "model"
            ((_, reached, _),) = model.calls
            assert {name for name, value in reached.items() if value == "forged"} == {name.lower() for name in reaching}
