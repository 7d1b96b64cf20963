"""The file of tokens' digests: who is let in, what is read again, and what a broken file does."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets as random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xds.credentials import TokenFile
from xds.identity import Denied, Peer, Unproven

RIGHT = random.token_hex(16)
NEXT = random.token_hex(16)


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def peer(token):
    return Peer(address="ipv4:127.0.0.1:1", token=token)


def document(**gateways):
    return "".join(f"models/{name}: [{', '.join(map(digest, tokens))}]\n" for name, tokens in gateways.items()) or "{}"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tokens.yaml"
    path.write_text(document(iris=[RIGHT]))
    return path


@pytest.fixture
def tokens(path, told, secrets):
    secrets |= {RIGHT, NEXT, digest(RIGHT), digest(NEXT)}
    return TokenFile(path, report=told, interval=0)


async def refused(tokens, token):
    with pytest.raises(Denied) as caught:
        await tokens.identify(peer(token))
    assert caught.value.status == "UNAUTHENTICATED"
    assert not token or token not in repr(caught.value)
    return caught.value


async def test_the_right_token_is_its_gateway(tokens):
    assert await tokens.identify(peer(RIGHT)) == {"models/iris"}


async def test_a_wrong_token_is_refused(tokens):
    for wrong in (NEXT, RIGHT[:-1], RIGHT + "x", RIGHT.upper(), digest(RIGHT), ""):
        assert not isinstance(await refused(tokens, wrong), Unproven)


async def test_no_token_proves_nothing(tokens):
    assert isinstance(await refused(tokens, None), Unproven)


async def test_one_token_may_be_for_several_gateways_and_a_gateway_may_have_several(path, tokens):
    path.write_text(document(iris=[RIGHT, NEXT], wine=[NEXT]))
    assert await tokens.identify(peer(RIGHT)) == {"models/iris"}
    assert await tokens.identify(peer(NEXT)) == {"models/iris", "models/wine"}


async def test_a_token_is_changed_without_a_gap(path, tokens, told):
    path.write_text(document(iris=[RIGHT, NEXT]))
    for token in (RIGHT, NEXT):
        assert await tokens.identify(peer(token)) == {"models/iris"}
    path.write_text(document(iris=[NEXT]))
    await refused(tokens, RIGHT)
    assert await tokens.identify(peer(NEXT)) == {"models/iris"}
    assert told.news == [f"read again: {path}"] * 2


async def test_a_file_that_is_replaced_by_a_link_is_read_again(tmp_path, told):
    """As Kubernetes does it: `tokens.yaml` -> `..data/tokens.yaml`, and `..data` is swapped."""
    for name, token in (("one", RIGHT), ("two", NEXT)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens.yaml").write_text(document(iris=[token]))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "tokens.yaml").symlink_to("..data/tokens.yaml")
    tokens = TokenFile(tmp_path / "tokens.yaml", report=told, interval=0)
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    await refused(tokens, RIGHT)
    assert await tokens.identify(peer(NEXT)) == {"models/iris"}


async def test_an_old_file_that_did_not_change_is_not_opened(path, tokens, monkeypatch):
    os.utime(path, (1, 1))
    await tokens.identify(peer(RIGHT))
    monkeypatch.setattr("xds.credentials._content", lambda _: pytest.fail("the file was opened"))
    assert await tokens.identify(peer(RIGHT)) == {"models/iris"}


async def test_the_file_is_looked_at_once_in_an_interval(path, told):
    now = 100.0
    tokens = TokenFile(path, report=told, interval=1.0, clock=lambda: now)
    path.write_text(document(iris=[NEXT]))
    now += 0.9
    assert await tokens.identify(peer(RIGHT)) == {"models/iris"}
    now += 0.1
    assert await tokens.identify(peer(NEXT)) == {"models/iris"}


@pytest.mark.parametrize("shown", ["1" * 64, "12e3" + "4" * 60, "0" * 64, "AB" * 32])
def test_digests_that_yaml_takes_for_numbers_are_digests(path, shown):
    path.write_text(f"models/iris: [{shown}]\nmodels/wine:\n  - '{shown}'\n")
    TokenFile(path)


BROKEN = {
    "": ": not a map of gateway",
    "# nothing\n": ": not a map of gateway",
    "- a\n": ":1: not a map of gateway",
    RIGHT: ":1: not a map of gateway",
    f"models/iris: {RIGHT}": ":1: not a list",
    f"models/iris:\n- {RIGHT}\n": ":2: not a SHA-256 digest",
    f"models/iris:\n- {{{RIGHT}: x}}\n": ":2: not a SHA-256 digest",
    f"models/iris:\n- {digest(RIGHT)}x\n": ":2: not a SHA-256 digest",
    f"models/iris:\n- '{digest(RIGHT)} '\n": ":2: not a SHA-256 digest",
    "models/iris:\n": ":1: not a list",
    f"{RIGHT}:\n- {digest(RIGHT)}\n": ":1: not a gateway",
    f"[{RIGHT}]: []\n": ":1: not a gateway",
    "models/iris: []\nmodels/iris: []\n": ":2: a gateway that stands further up",
    f"models/iris: [*{RIGHT}]": ":1: not a SHA-256 digest",
    f"models/iris: *{RIGHT}": ":1: not a list",
    f"*{RIGHT} : []": ":1: not a gateway",
    f"models/iris: !{RIGHT} [": "not YAML",
    f"models/iris: [\n{digest(RIGHT)}": "not YAML",
    f"a/b: []\n---\n{RIGHT}: []": ":2: a second document",
    f"models/iris: [\x00{RIGHT}]": "not YAML",
    "\t": "not YAML",
    "[" * 100_000: ":1: not a map",
    "models/iris: " + "[" * 100_000: ":1: not a SHA-256 digest",
}


@pytest.mark.parametrize("content", BROKEN, ids=BROKEN.values())
def test_a_broken_file_is_refused_at_start_in_one_line_that_names_it(path, secrets, content):
    path.write_text(content)
    with pytest.raises(ValueError, match=r": ") as caught:
        TokenFile(path)
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert BROKEN[content] in message
    assert "\n" not in message
    for secret in (RIGHT, digest(RIGHT)):
        assert secret not in "".join(map(repr, (caught.value, caught.value.__cause__)))
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_bytes_that_are_no_text_are_refused(path):
    path.write_bytes(b"models/iris: [\xff\xfe]")
    with pytest.raises(ValueError, match="not YAML in UTF-8"):
        TokenFile(path)


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path):
    for path, why in ((tmp_path / "missing", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(OSError, match=why) as caught:
            TokenFile(path)
        assert str(caught.value) == f"{path}: {why}"


@pytest.mark.parametrize("content", BROKEN, ids=BROKEN.values())
async def test_a_file_that_breaks_keeps_the_last_good_and_is_told_once(path, tokens, told, content):
    path.write_text(content)
    for _ in range(3):
        assert await tokens.identify(peer(RIGHT)) == {"models/iris"}
        await refused(tokens, NEXT)
    (error,) = told.errors
    assert BROKEN[content] in error
    assert error.endswith("what was read before stays in use")


async def test_a_file_that_is_gone_keeps_the_last_good_until_it_is_back(path, tokens, told):
    path.unlink()
    for _ in range(2):
        assert await tokens.identify(peer(RIGHT)) == {"models/iris"}
    path.write_text(document(iris=[RIGHT]))
    await tokens.identify(peer(RIGHT))
    path.unlink()
    await tokens.identify(peer(RIGHT))
    path.write_text(document(iris=[NEXT]))
    assert await tokens.identify(peer(NEXT)) == {"models/iris"}
    assert told.errors == [f"{path}: No such file or directory; what was read before stays in use"] * 2
    assert told.news == [f"read again: {path}"] * 2


async def test_an_empty_map_lets_nobody_in(path, tokens, told):
    path.write_text("{}")
    await refused(tokens, RIGHT)
    assert not told.errors


async def test_reports_go_to_the_log_by_default(path, caplog):
    caplog.set_level(logging.INFO)
    tokens = TokenFile(path, interval=0)
    path.write_text("")
    await tokens.identify(peer(RIGHT))
    await tokens.identify(peer(RIGHT))
    ((name, level, message),) = caplog.record_tuples
    assert (name, level) == ("xds.credentials", logging.ERROR)
    assert str(path) in message


@given(st.binary() | st.text(st.sampled_from("models/iris: []{}-\n\"'&*!|>#%@`0a"), max_size=200).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_file_is_read_or_refused(path, content):
    path.write_bytes(content)
    said = f"{path}"
    try:
        TokenFile(path)
    except ValueError as error:
        said = str(error)
    assert said.startswith(f"{path}")
    assert "\n" not in said
