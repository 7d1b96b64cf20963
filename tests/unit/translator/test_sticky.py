"""The arithmetic of sticky splits, and the regular expressions that find a cookie (RE2, which is what Envoy runs)."""

from __future__ import annotations

import pytest
import re2
from hypothesis import assume, given
from hypothesis import strategies as st

from translator.envoy.cookies import has_cookie
from translator.envoy.matches import route_match
from translator.envoy.splits import STICKY_TOTAL, to_constant_total
from translator.objects.cookies import within_value
from translator.plan import Comparison, Match, ValueMatch

weights = st.lists(st.integers(1, 1_000_000), min_size=1, max_size=64)


@given(weights)
def test_the_total_is_constant_and_everyone_keeps_a_part(given_weights):
    scaled = to_constant_total(given_weights)
    assert sum(scaled) == STICKY_TOTAL
    assert len(scaled) == len(given_weights)
    assert min(scaled) >= 1


@given(weights)
def test_proportions_are_kept_to_the_last_unit(given_weights):
    total = sum(given_weights)
    for weight, scaled in zip(given_weights, to_constant_total(given_weights), strict=True):
        assert abs(scaled * total - weight * STICKY_TOTAL) <= total


@given(weights, st.integers(2, 1000))
def test_only_proportions_count(given_weights, factor):
    assert to_constant_total([weight * factor for weight in given_weights]) == to_constant_total(given_weights)


@given(*[st.integers(1, 1_000_000)] * 4)
def test_between_two_only_the_share_that_must_move_moves(a, b, c, d):
    """A key's hash, modulo the total, falls into the interval of a backend: both have one edge between them."""
    before, after = to_constant_total([a, b]), to_constant_total([c, d])
    moved = abs(before[0] - after[0])
    wanted = abs(a * (c + d) - c * (a + b)) * STICKY_TOTAL
    assert abs(moved * (a + b) * (c + d) - wanted) <= (a + b) * (c + d)


@given(weights, weights)
def test_intervals_stand_in_the_order_of_the_weights(front, back):
    """So the backends in front of a change keep their keys while their part of the whole stays."""
    before = to_constant_total([*front, sum(back)])
    assert to_constant_total([*front, *back])[: len(front)] == before[: len(front)]


TCHARS = "!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ"
names = st.text(TCHARS, min_size=1, max_size=12)
# RFC 6265's cookie-octet, and what browsers send beyond it: blanks, quotes, commas, backslashes, other alphabets.
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x17F, exclude_characters=";\x7f"), max_size=12).map(
    str.strip
)
separators = st.sampled_from(["; ", ";", ";  "])


def found(matcher, header):
    return re2.fullmatch(matcher.string_match.safe_regex.regex, header) is not None


def matcher(name, comparison, value=""):
    (made,) = route_match(Match(cookies=(ValueMatch(name, comparison, value),))).headers
    assert made.name == "cookie"
    return made


def parsed(header):
    """The pairs of a Cookie header, as RFC 6265 and Envoy read them."""
    return [(name.strip(" "), value) for name, _, value in (part.partition("=") for part in header.split(";"))]


@given(st.lists(st.tuples(names, values), min_size=1, max_size=5), st.data())
def test_a_cookie_is_found_wherever_it_stands(cookies, data):
    header = cookies[0][0] + "=" + cookies[0][1]
    for name, value in cookies[1:]:
        header += data.draw(separators) + name + "=" + value
    wanted = data.draw(st.one_of(names, st.sampled_from([name for name, _ in cookies])))
    held = [value for name, value in parsed(header) if name == wanted]
    assert found(has_cookie(wanted), header) == any(held)
    assert found(matcher(wanted, Comparison.PRESENT), header) == bool(held)
    value = data.draw(st.one_of(values, st.sampled_from([value for _, value in cookies])))
    assert found(matcher(wanted, Comparison.EXACT, value), header) == (value in held)
    assume(value)
    assert found(matcher(wanted, Comparison.PREFIX, value), header) == any(each.startswith(value) for each in held)


@pytest.mark.parametrize(
    ("header", "has"),
    [
        ("xd=abc", True),
        ("a=1; xd=abc", True),
        ("a=1;xd=abc", True),
        ("xd=abc; a=1", True),
        ("a=1; xd=abc; b=2", True),
        ('xd="abc"', True),
        ("xd=a=b", True),
        ("xd=", False),
        ("xd=; a=1", False),
        ("xdx=abc", False),
        ("my-xd=abc", False),
        ("my_xd=abc; a=xd=abc", False),
        ("a=xd=abc", False),
        ("XD=abc", False),
        ("xd", False),
        ("a=1, xd=abc", False),
    ],
)
def test_tricky_headers(header, has):
    assert found(has_cookie("xd"), header) is has


@pytest.mark.parametrize("name", ["b.e$ta", "a|b", "x*", "^caret", "a+b"])
def test_a_name_is_no_expression(name):
    assert found(has_cookie(name), f"{name}=1")
    assert not found(has_cookie(name), "beXta=1; a=1; x=1; xx=1; caret=1; aab=1; b=1")


def test_alternatives_stay_within_the_value():
    either = matcher("beta", Comparison.REGEX, "a+|b+")
    assert found(either, "beta=aaa")
    assert found(either, "x=1; beta=b; y=2")
    for header in ("beta=ab", "bbb", "beta=ac; c=b"):
        assert not found(either, header)


PARTS = st.sampled_from(
    ["a", "b", ";", "=", " ", ".", "[^a]", "[ab;]", "[^]a]", "[^-b]", "[[:^alpha:]b]", r"\S", r"\D", r"\W", r"\w",
     r"\.", r"\;", r"\PN", r"\P{Greek}", r"\pL", r"\Q.;\E", r"\\", "(a|.b)", "(?:.)", "(?i:A)", "[ -~]", r"[\S]",
     r"\x3b", r"\073", r"\pP", "[[:punct:]]"]
)  # fmt: skip
SEMICOLONS = (";", "[[:^", "[ -~]", r"[\S]", r"\x3b", r"\073", r"\pP", "[[:punct:]]")
expressions = st.lists(st.tuples(PARTS, st.sampled_from(["", "", "*", "+", "?", "{1,2}"])), max_size=5).map(
    lambda parts: "".join(part + ("" if part.startswith(r"\Q") else times) for part, times in parts)
)


@given(expressions, st.sampled_from(["", "^"]), st.sampled_from(["", "$"]), st.text("ab=.\\A1 αé", max_size=6))
def test_an_expression_means_the_same_within_a_value_and_sees_no_other(expression, start, end, value):
    try:
        confined = within_value(start + expression + end)
    except ValueError:
        assert any(part in expression for part in SEMICOLONS)
        return
    for header in (f"beta=x; o={value}", f"beta={value}; o=x", f"o={value}; beta=; p={value}"):
        held = dict(pair.strip().split("=", 1) for pair in header.split(";"))["beta"]
        if value == value.strip() and "=" not in value:
            wanted = re2.fullmatch(expression, held) is not None
            assert found(matcher("beta", Comparison.REGEX, start + expression + end), header) is wanted
    assert (re2.fullmatch(confined, value) is not None) == (re2.fullmatch(expression, value) is not None)


@pytest.mark.parametrize(
    ("expression", "header", "matches"),
    [
        ("v.*2", "beta=v1; other=2", False),
        ("v.*2", "other=2; beta=v12; x=1", True),
        ("^1$", "a=b; beta=1; c=d", True),
        ("^1$", "a=b; beta=11; c=d", False),
        (r"a\$", "beta=a$", True),
        (r"[^x]*", "beta=1; x=x", True),
        (r"\S+ y=2", "beta=1; y=2", False),
    ],
)
def test_an_expression_sees_one_cookie_alone(expression, header, matches):
    assert found(matcher("beta", Comparison.REGEX, expression), header) is matches


def test_bytes_that_are_no_text_hide_no_other_cookie():
    regex = has_cookie("xd").string_match.safe_regex.regex
    assert re2.fullmatch(regex.encode(), b"a=\xff\xfe; xd=1; b=\xff") is not None


@pytest.mark.parametrize(
    "expression", ["[ -~]*admin", r"[\S]+", r"[\W\w]", r"[\PN]", "[[:graph:] ]", "[:-<]", r"\p{P}", r"\x{3b}", "a;b"]
)
def test_an_expression_that_can_match_a_semicolon_is_refused(expression):
    with pytest.raises(ValueError, match=r".+"):
        within_value(expression)
