"""A slip in tools/wanted.txt is said in one line, with its number."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "generate.py"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["generate"]


def test_reads_entries_over_several_lines(generate):
    text = "# all of it\na.b.Message: one two  # three\n  four\n\na.b.Empty:\n"
    wanted = generate.read_wanted(text)
    assert {name: entry.fields for name, entry in wanted.items()} == {
        "a.b.Message": ("one", "two", "four"),
        "a.b.Empty": (),
    }
    assert wanted["a.b.Empty"].line == 5


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("# x\n  name", "wanted.txt:2: found a line that goes on, but no entry before it"),
        ("a.Message name", "wanted.txt:1: found 'a.Message name', expected `full.name.of.Message: field field`"),
        ("a.Mess-age: name", "wanted.txt:1: found 'a.Mess-age: name', expected"),
        (": name", "wanted.txt:1: found ': name', expected"),
        ("a.M: x\n\na.M: y", "wanted.txt:3: found a.M again, it is on line 1"),
        (
            "google.protobuf.Nothing: *",
            "wanted.txt:1: found google.protobuf.Nothing, which the descriptors do not have",
        ),
        ("not.a.package.Message: *", "wanted.txt:1: found not.a.package.Message, which the descriptors do not have"),
        ("google.protobuf.Any: url", "wanted.txt:1: google.protobuf.Any has no field 'url'"),
        ("google.protobuf.Any: value value", "wanted.txt:1: google.protobuf.Any lists 'value' twice"),
        (
            "\ngoogle.protobuf.ListValue: values",
            "wanted.txt:2: google.protobuf.ListValue.values is a google.protobuf.Value, which has no entry",
        ),
    ],
)
def test_says_what_is_wrong_in_one_line(generate, text, error):
    with pytest.raises(generate.GenerateError) as raised:
        generate.Cut.of(generate.read_wanted(text))
    assert str(raised.value).startswith(error)
    assert "\n" not in str(raised.value)
