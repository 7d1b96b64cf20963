"""Rules mean a path in every spelling that a model server decodes to it."""

from __future__ import annotations

import random
import re
from urllib.parse import unquote_to_bytes

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from translator.envoy import paths
from translator.objects.paths import canonical, spelled_length

NORMALISED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
PRINTABLE = [chr(code) for code in range(0x21, 0x7F) if chr(code) not in "/\\?#%"]
PIECES = [*PRINTABLE, "/", "%", "%25", "%20", "%C3%A9", "%3A", "%3a", "%40", "%7f", "%0A"]


def spelled(path, luck):
    """One spelling of a path among all that are the same after decoding, as Envoy's normalisation lets it through."""
    made = "".join(luck.choice(_spellings(byte)) for byte in unquote_to_bytes(path))
    # A sign that begins no escape may stand as it is.
    return re.sub(r"%25(?![0-9A-Fa-f]{2})", lambda _: luck.choice(["%", "%25"]), made)


def _spellings(byte):
    character = chr(byte)
    escaped = [f"%{byte:02X}", f"%{byte:02x}"]
    if character in NORMALISED or character == "/":
        return [character]
    return [character, *escaped] if 0x20 < byte < 0x7F and character not in "?#%\\" else escaped


def matches(expression, path):
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(expression.encode(), options).fullmatch(path.encode()) is not None


any_path = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map(lambda pieces: "/" + "".join(pieces))


@given(any_path, st.integers())
def test_every_spelling_of_a_path_meets_its_rule(path, seed):
    luck = random.Random(seed)
    value = canonical(path)
    for _ in range(5):
        sent = spelled(path, luck)
        assert matches(paths.exact(value), sent)
        assert matches(paths.prefix(value), sent)
        assert matches(paths.prefix(value), f"{sent}/below:this")
        assert not matches(paths.prefix(value), f"{sent}below")


@given(any_path, any_path, st.integers())
def test_no_spelling_of_another_path_does(path, other, seed):
    if unquote_to_bytes(path) != unquote_to_bytes(other):
        assert not matches(paths.exact(canonical(path)), spelled(other, random.Random(seed)))


@given(any_path, st.integers())
def test_a_rule_may_be_written_in_any_spelling(path, seed):
    assert canonical(spelled(path, random.Random(seed))) == canonical(path)


@pytest.mark.parametrize(
    ("written", "means"),
    {"/%40team": "/@team", "/a%3Ab": "/a:b", "/%41%2d%5F": "/A-_", "/%2525": "/%2525", "/%c3%a9": "/%C3%A9"}.items(),
)
def test_escapes_of_plain_characters_are_decoded_once(written, means):
    assert canonical(written) == means


def test_a_path_of_one_spelling_needs_no_expression():
    assert paths.is_plain("/v1/models/iris-v2.1_x~y")
    assert not any(paths.is_plain(f"/a{sign}b") for sign in [*":@+$ ", "%25"])


@given(any_path)
def test_the_size_of_a_rule_counts_all_spellings(path):
    assert len(paths.exact(canonical(path))) <= 2 * len(path) + spelled_length(path)
