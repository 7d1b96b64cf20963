"""Tensors as lists and as bytes are the same tensors; what is none is told in one line."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdserve.router.answers import Failure
from xdserve.router.simulation import v2
from xdserve.router.simulation.tensors import DATATYPES, Tensor, TensorError, echo, flat


def whole(bits, *, signed):
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


ELEMENTS = {
    "BOOL": st.booleans(),
    **{f"INT{bits}": whole(bits, signed=True) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": whole(bits, signed=False) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": st.floats(width=bits, allow_nan=False, allow_infinity=False) for bits in (16, 32, 64)},
    "BYTES": st.text(),
}
TENSORS = st.sampled_from(sorted(ELEMENTS)).flatmap(
    lambda datatype: st.lists(ELEMENTS[datatype]).map(
        lambda values: Tensor("x", datatype, (len(values),), values=tuple(values))
    )
)


@given(TENSORS)
def test_values_and_bytes_are_the_same(tensor):
    raw = Tensor("x", tensor.datatype, tensor.shape, raw=tensor.checked().as_raw()).checked()
    assert raw.as_values() == list(tensor.values)


@given(TENSORS, st.integers(1, 5))
def test_a_shape_that_does_not_fit_is_refused(tensor, more):
    for wrong in (Tensor("x", tensor.datatype, (len(tensor.values) + more,), values=tensor.values),
                  Tensor("x", tensor.datatype, (len(tensor.values) + more,), raw=tensor.as_raw())):  # fmt: skip
        with pytest.raises(TensorError, match=r"^x: found \d+ elements, allowed \d+ by its shape$"):
            wrong.checked()


@given(st.sampled_from(DATATYPES), st.binary(max_size=64), st.lists(st.integers(-1, 9), max_size=3))
def test_any_bytes_are_a_tensor_or_told_to_be_none(datatype, raw, shape):
    told = ""
    try:
        tensor = Tensor("x", datatype, tuple(shape), raw=raw).checked()
        assert len(tensor.as_values()) == math.prod(shape)
    except TensorError as error:
        told = str(error)
    assert not told or told.startswith("x: ")


@given(st.binary(max_size=80), st.none() | st.integers(-3, 90).map(str))
def test_any_body_is_a_request_or_told_to_be_none(body, size):
    with pytest.raises((Failure, TensorError)):
        v2.read(body, size)


def test_bf16_goes_through_as_bytes_alone():
    tensor = Tensor("x", "BF16", (2,), raw=b"abcd").checked()
    assert tensor.as_raw() == b"abcd"
    with pytest.raises(TensorError, match="binary data alone"):
        tensor.as_values()


def test_rows_come_one_after_the_other():
    assert flat([[1, 2], [[3], 4]]) == [1, 2, 3, 4]
    assert Tensor("x", "INT16", (2, 2), values=flat([[1, 2], [3, 4]])).checked().as_raw() == struct.pack(
        "<4h", 1, 2, 3, 4
    )


def test_outputs_have_the_names_that_are_wanted():
    one, two = (Tensor(name, "INT8", (0,), values=()) for name in ("one", "two"))
    assert [tensor.name for tensor in echo([one, two], [])] == ["one", "two"]
    assert echo([one, two], ["a", "b", "c"]) == [one.renamed("a"), two.renamed("b"), one.renamed("c")]
