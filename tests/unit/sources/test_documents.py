"""Texts as documents: what is read, what is refused, and that no text does harm."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdserve.sources.documents import LARGEST_FILE, Document, read

# Other work on a machine moves the time that an example takes.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def json_values(text: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    floats = st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | st.integers(-(10**30), 10**30) | floats | text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=20,
    )


def values(text: str, name: str = "a.yaml") -> list[object]:
    documents, stop = read(name, text.encode())
    assert stop is None, stop
    return [document.value for document in documents]


def complaint(text: str | bytes, name: str = "a.yaml") -> str:
    _, stop = read(name, text.encode() if isinstance(text, str) else text)
    assert stop is not None
    assert stop.message.isprintable()
    assert len(stop.message) < 300
    return stop.message


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01", "2026-01-01"),
        ("010", "010"),
        ("0o10", 8),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("+5", 5),
        ("-5", -5),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        (".inf", ".inf"),
        ("1.5.2", "1.5.2"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("300ms", "300ms"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_plain_word_is_what_yaml_1_2_says(written: str, value: object):
    found = values(f"a: {written}\n")
    assert found == [{"a": value}]
    assert type(found[0]["a"]) is type(value)


def test_documents_are_numbered_as_they_are_written():
    documents, stop = read("a.yaml", b"# nothing\n---\n---\na: 1\n---\n---\nb: 2\n---\n")
    assert stop is None
    assert documents == [Document(2, {"a": 1}), Document(4, {"b": 2})]


@pytest.mark.parametrize("name", ["list.yaml", "list.json"])
def test_each_item_of_a_list_is_a_document(name: str):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"a": 1}, None, {"b": 2}]})
    documents, _ = read(name, text.encode())
    assert documents == [Document(1, {"a": 1}), Document(3, {"b": 2})]


def test_what_stands_before_a_broken_document_is_read():
    documents, stop = read("a.yaml", b"a: 1\n---\nb: 2\n---\nc: [\n")
    assert [document.index for document in documents] == [1, 2]
    assert stop is not None
    assert (stop.index, stop.message[:8]) == (3, "line 6, ")


def test_anchors_aliases_and_merges():
    assert values("a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}\nd: {<<: [*x, {z: 1, p: 9}]}\n'<<': 1\n") == [
        {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 2}, "c": {"p": 1, "q": 3}, "d": {"p": 1, "q": 2, "z": 1}, "<<": 1}
    ]
    assert values("&a a: *a\n*a : b\n"[:9] + "\n") == [{"a": "a"}]


def test_a_byte_order_mark_does_no_harm():
    assert read("a.yaml", b"\xef\xbb\xbfa: 1\n")[0] == [Document(1, {"a": 1})]
    assert read("a.json", b'\xef\xbb\xbf{"a": 1}')[0] == [Document(1, {"a": 1})]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 'line 3, column 1: key "a" is written twice'),
        ("a: {b: 1, b: 2}\n", 'key "b" is written twice'),
        ("a: [1, 2\n", "line 2, column 1: "),
        ("a: b: c\n", "line 1, column 5: "),
        ("\ta: b\n", "line 1, column 1: "),
        ("a: \x01\n", "control characters"),
        ('a: "\\ud800"\n', "invalid Unicode"),
        ("a: *missing\n", 'alias "missing" has no anchor'),
        ("a: &a [*a]\n", 'alias "a" has no anchor'),
        ("? [a]\n: b\n", "a key must be a plain word"),
        ("a: !!binary aGk=\n", "tag"),
        ("a: !!python/object/apply:os.system [ls]\n", "tag"),
        ("a: {<<: 5}\n", "<< wants a map"),
        ("%YAML 3.0\n---\na\n", "incompatible YAML"),
        (b"a: \xff\n", "byte at 3 that is not UTF-8"),
        (b"#" * (LARGEST_FILE + 1), f"allowed {LARGEST_FILE}"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str | bytes, words: str):
    assert words in complaint(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,\n "a": 2}', 'key "a" is written twice'),
        ('{"a": 1,\n}', "line 2, column 1: "),
        ("", "line 1, column 1: "),
        ("{} {}", "line 1, column 4: "),
        ('{"a": NaN}', "found NaN"),
        ('"\\ud800"', "surrogate"),
        ("9" * 5000, "digits"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
    ],
)
def test_json_that_is_none(text: str, words: str):
    assert words in complaint(text, "a.json")


@pytest.mark.parametrize(
    ("text", "place", "tag"),
    [
        ("metadata:\n  name: {{ .Values.name }}\n", "line 2, column 9", "{{"),
        ('a: {{ printf "%s" .x | quote }}\n', "line 1, column 4", "{{"),
        ("a: {{ .x }}-foo\n", "line 1, column 4", "{{"),
        ("a: foo-{{ x }}: b\n", "line 1, column 8", "{{"),
        ("a:\n- {{ x }}\n- b\n", "line 2, column 3", "{{"),
        ("a: 1\r\n{{- if .x }}\r\nb: 2\r\n{{- end }}\r\n", "line 2, column 1", "{{"),
        ("{{/* nothing */}}\na: 1\n", "line 1, column 1", "{{"),
        ('a:\n    {{- include "labels" . | nindent 4 }}\nb: {}\n', "line 2, column 5", "{{"),
        ("a: 1  # {{ x }}\nb: {{ x }}\n", "line 2, column 4", "{{"),
        ("a: 1\n---\nb: '{{ x }}'\nc: {{ x }}\n", "line 4, column 4", "{{"),
        ("{% if x %}\na: 1\n{% endif %}\n", "line 1, column 1", "{%"),
        ("a: {% x %}\n", "line 1, column 4", "{%"),
    ],
)
def test_a_template_that_is_not_rendered_is_told_as_one(text: str, place: str, tag: str):
    assert complaint(text) == f"{place}: found {tag}, render the template first"


@pytest.mark.parametrize("text", ['{"a": {{ x }}}', '{"a": [{{ x }}]}', '{"a": 1, {{ x }}}', '{"a": {% x %}}'])
def test_a_template_of_json_that_is_not_rendered_is_told_as_one(text: str):
    column = text.index("{{" if "{{" in text else "{%") + 1
    assert complaint(text, "a.json").startswith(f"line 1, column {column}: found {{")
    assert complaint(text, "a.json").endswith(", render the template first")


@pytest.mark.parametrize(
    "text", ["a: '{{ x }}'\n", 'a: "{% x %}"\n', "a: b {{ x }}\n", "a: |\n  {{ x }}\n", "# {{ x }}\na: 1\n"]
)
def test_a_text_with_a_tag_in_it_is_a_text(text: str):
    assert values(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: '{{ x }}'\nb: [\n",
        "a: '{{ x }}': b\n",
        "# {{ x }}\n\ta: b\n",
        "a: |\n  {{ x }}\nb: [",
        "a: b: c  # {{ x }}\n",
    ],
)
def test_what_is_wrong_elsewhere_is_no_template(text: str):
    assert "template" not in complaint(text)


@pytest.mark.parametrize("line", ["a: b: " + '"\\' * 2_000_000, "a: b: " + "'\"" * 2_000_000, "{" * 1_000_000])
def test_a_long_line_is_not_searched_for_long(line: str):
    started = time.process_time()
    complaint(f"{line}\n")
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "- " * 50_000 + "x", "{a: " * 50_000, "".join(" " * n + "a:\n" for n in range(2000))]
)
def test_endless_nesting_is_refused(text: str):
    assert "nested deeper than 64" in complaint(text)


def test_aliases_cannot_be_a_bomb():
    levels = "\n".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 60))
    tracemalloc.start()
    assert "aliases stand for more than" in complaint("a0: &a0 [x]\n" + levels + "\n")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@relaxed
@given(json_values(st.text()))
def test_json_is_read_as_it_was_written(value: object):
    assert values(json.dumps(value), "a.json") == ([] if value is None else [value])


# PyYAML writes words without quotes that are numbers since YAML 1.2 (0E0): none ends like this.
@relaxed
@given(json_values(st.text().map(lambda text: text + "~")))
def test_yaml_is_read_as_it_was_written(value: object):
    text = yaml.safe_dump(value, allow_unicode=False)
    try:
        expected = yaml.safe_load(text)
    except yaml.YAMLError:  # what PyYAML writes and cannot read itself
        return
    if expected == value:
        assert values(text) == ([] if value is None else [value])


TEXTS = st.text() | st.text(alphabet="{}[]&*!|>-:?, \n'\"#%@a1<")
BYTES = st.binary() | TEXTS.map(lambda text: text.encode(errors="ignore"))


@relaxed
@given(BYTES, st.sampled_from(["a.yaml", "a.json"]))
def test_any_bytes_are_read_or_refused(content: bytes, name: str):
    _, stop = read(name, content)
    assert stop is None or stop.message.isprintable()


def test_the_items_of_a_list_of_a_kind_are_documents():
    text = "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n---\nb: 2\n"
    documents, stop = read("a.yaml", text.encode())
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}
    assert (documents, stop) == ([Document(1, service), Document(2, {"b": 2})], None)
