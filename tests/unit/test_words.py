"""What others say is shown in one line, bounded, without control characters and without secrets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xdserve.words import HIDDEN, LONGEST, shown, shown_of_secret

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END PRIVATE KEY-----"


def test_plain_words_stay() -> None:
    assert shown("missing ): (größer") == "missing ): (größer"


def test_control_characters_are_escaped() -> None:
    assert shown("\x1b[2Ja\nb\u202ec\x00\ud800") == "\\x1b[2Ja\\nb\\u202ec\\x00\\ud800"


def test_long_words_are_cut() -> None:
    assert shown("x" * LONGEST) == "x" * LONGEST
    assert shown("x" * (LONGEST + 1)) == "x" * LONGEST + "..."
    assert shown("\x00" * 10_000_000) == ("\\x00" * LONGEST)[:LONGEST] + "..."


def test_keys_are_left_out_also_of_other_types() -> None:
    assert shown(f"bad key {PEM} in listener") == f"bad key {HIDDEN} in listener"
    assert shown(f"bad key {PEM[:30]}") == f"bad key {HIDDEN}"


def test_of_a_secret_nothing_is_repeated() -> None:
    assert shown_of_secret("Failed to load private key from <inline>, Cause: error:068") == (
        "Failed to load private key from <inline>, Cause: error:068"
    )
    assert shown_of_secret('value "hunter2 is it" is wrong\nname: hunter2') == f"value {HIDDEN} is wrong"
    assert shown_of_secret("can't read 'hunter2' nor `hunter2") == f"can't read {HIDDEN} nor {HIDDEN}"
    assert shown_of_secret("got " + "QUJD" * 16 + "==") == f"got {HIDDEN}"
    assert shown_of_secret("") == ""


@given(st.text())
def test_any_text_is_one_bounded_printable_line(text: str) -> None:
    for line in (shown(text), shown_of_secret(text)):
        assert line.isprintable()
        assert len(line) <= LONGEST + 3
