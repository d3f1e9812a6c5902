"""Tensors between the wire and NumPy: every type goes there and back, every wrong byte is refused by its field."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ortmesh.descriptors import oip
from ortmesh.errors import BadInput
from ortmesh.serving import tensors
from ortmesh.serving.oip_contents import SLICE, decode_typed, encode_typed
from ortmesh.serving.tensors import TYPES, DataType, decode_raw, encode_raw
from ortmesh.serving.types import Array

Contents = oip("InferTensorContents")
RAW_ONLY = ("FP16", "BF16")
TYPED = [name for name in TYPES if name not in RAW_ONLY]


def arrays(kind: DataType) -> st.SearchStrategy[Array]:
    """Arrays of a type in any shape, also without elements or dimensions; NaNs and all texts that UTF-8 has."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    return hnp.arrays(kind.dtype, shapes, elements=texts if kind.name == "BYTES" else None)


def refused(read: Callable[[], object]) -> tuple[str, str]:
    """The field and the text of the BadInput that reading raises."""
    with pytest.raises(BadInput) as caught:
        read()
    (violation,) = caught.value.violations
    return violation.field, violation.description


def raw(name: str, shape: tuple[int, ...], payload: bytes) -> Array:
    return decode_raw(TYPES[name], shape, payload, 0)


def typed(name: str, shape: tuple[int, ...], **contents: Any) -> Array:
    return decode_typed(TYPES[name], shape, Contents(**contents), 2)


# The table


def test_every_type_agrees_with_onnx() -> None:
    """The table's ONNX numbers are those of onnx, whose NumPy types are ours (but for BF16 and texts)."""
    for kind in TYPES.values():
        assert tensors.datatype_of_onnx(kind.onnx) == kind.name
        assert tensors.datatype_of_ort(kind.ort) == kind.name
        if kind.name not in ("BF16", "BYTES"):
            assert onnx.helper.tensor_dtype_to_np_dtype(kind.onnx) == tensors.dtype_of(kind.name)
    assert TYPES["BF16"].onnx == onnx.TensorProto.BFLOAT16
    assert TYPES["BYTES"].onnx == onnx.TensorProto.STRING


@pytest.mark.parametrize(
    "ort", ["tensor(int4)", "seq(tensor(float))", "map(string,tensor(float))", "tensor(complex64)"]
)
def test_what_cannot_travel_is_refused_by_name(ort: str) -> None:
    with pytest.raises(ValueError, match="can't travel: expected a tensor of BOOL, INT8"):
        tensors.datatype_of_ort(ort)


def test_an_onnx_type_that_cannot_travel_is_refused() -> None:
    with pytest.raises(ValueError, match="element type 14 can't travel"):
        tensors.datatype_of_onnx(onnx.TensorProto.COMPLEX64)


# There and back


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_raw_goes_there_and_back(name: str, data: st.DataObject) -> None:
    """Bit for bit: also NaNs, also views that are not contiguous."""
    kind = TYPES[name]
    array = data.draw(arrays(kind)).T
    payload = encode_raw(kind, array)
    back = decode_raw(kind, array.shape, payload, 0)
    assert back.shape == array.shape
    assert back.dtype == kind.dtype
    assert back.tolist() == array.tolist() if name == "BYTES" else back.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", TYPED)
@given(data=st.data())
def test_typed_goes_there_and_back(name: str, data: st.DataObject) -> None:
    """Through the bytes of the message, as a caller's library would write and read them."""
    kind = TYPES[name]
    array = data.draw(arrays(kind)).T
    contents = Contents.FromString(encode_typed(kind, array).SerializeToString())
    back = decode_typed(kind, array.shape, contents, 0)
    assert back.shape == array.shape
    assert back.dtype == kind.dtype
    assert back.flags.aligned
    assert back.tolist() == array.tolist() if name == "BYTES" else back.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", [name for name in TYPED if name != "BYTES"])
def test_typed_values_are_those_of_the_message(name: str) -> None:
    """Not only our own inverse: the field holds the numbers themselves."""
    kind = TYPES[name]
    array = np.array([[0, 1, 1], [1, 0, 1]], kind.dtype)
    assert kind.contents is not None
    assert list(getattr(encode_typed(kind, array), kind.contents)) == [0, 1, 1, 1, 0, 1]
    np.testing.assert_array_equal(typed(name, (2, 3), **{kind.contents: [0, 1, 1, 1, 0, 1]}), array)


@pytest.mark.parametrize("name", ["INT64", "UINT8", "FP32", "BOOL", "BYTES"])
def test_more_values_than_one_slice_travel_typed(name: str) -> None:
    kind = TYPES[name]
    array = (np.arange(2 * SLICE + 7) % 2).astype(kind.dtype if name != "BYTES" else "U1").astype(kind.dtype)
    back = decode_typed(kind, array.shape, encode_typed(kind, array), 0)
    np.testing.assert_array_equal(back, array)


def test_raw_is_a_view_of_the_request() -> None:
    payload = np.arange(6, dtype=np.float32).tobytes()
    array = raw("FP32", (2, 3), payload)
    assert np.shares_memory(array, np.frombuffer(payload, np.float32))
    assert not array.flags.writeable


def test_fields_that_we_do_not_know_do_not_disturb_packed_values() -> None:
    """A newer caller's field 99 in the contents is skipped."""
    values = Contents(fp32_contents=[1.5, 2.5]).SerializeToString()
    unknown = b"\x9a\x06\x03abc"
    for message in (values + unknown, unknown + values):
        back = decode_typed(TYPES["FP32"], (2,), Contents.FromString(message), 0)
        assert back.tolist() == [1.5, 2.5]


def test_a_type_that_travels_raw_only_has_no_contents() -> None:
    with pytest.raises(KeyError, match="FP16"):
        encode_typed(TYPES["FP16"], np.zeros(1, np.float16))


# Wrong shapes


def test_a_negative_size_is_refused() -> None:
    assert refused(lambda: raw("FP32", (-1, 3), b"")) == (
        "inputs[0].shape",
        "[-1, 3]: expected sizes that are not negative",
    )
    assert refused(lambda: typed("FP32", (2, -3)))[0] == "inputs[2].shape"


@pytest.mark.parametrize("shape", [(2**32, 2**32), (2**62, 4), (0, 2**62, 2**62), (2**63 - 1, 1)])
def test_a_shape_beyond_64_bits_is_refused(shape: tuple[int, ...]) -> None:
    """Also when a 0 among the sizes makes the product 0."""
    field, text = refused(lambda: raw("FP32", shape, b""))
    assert field == "inputs[0].shape"
    assert text == f"{list(shape)}: expected at most {2**63 - 1} bytes in all"


def test_too_many_dimensions_are_refused_before_they_cost() -> None:
    """The product of a million twos would take minutes."""
    assert refused(lambda: raw("FP32", (2,) * 1_000_000, b"")) == (
        "inputs[0].shape",
        "1000000 dimensions: expected at most 64",
    )
    assert raw("UINT8", (1,) * 64, b"\x07").ndim == 64


# Wrong raw bytes


@pytest.mark.parametrize(("size", "expected"), [(0, 24), (23, 24), (25, 24)])
def test_a_wrong_byte_count_is_refused_with_both_numbers(size: int, expected: int) -> None:
    assert refused(lambda: raw("FP32", (2, 3), bytes(size))) == (
        "raw_input_contents[0]",
        f"{size} bytes: expected {expected} for FP32 [2, 3]",
    )


def test_a_truth_value_beyond_1_is_refused() -> None:
    assert refused(lambda: raw("BOOL", (3,), b"\x00\x01\x02")) == (
        "raw_input_contents[0]",
        "byte 2 is 2: expected 0 or 1",
    )


def elements(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"\x01\x00\x00", "3 bytes: expected a 4-byte length before each of 2 elements"),
        (elements(b"abcdef"), "element 1: expected a 4-byte length, 0 bytes are left"),
        (elements(b"abcdef") + b"\x01", "element 1: expected a 4-byte length, 1 bytes are left"),
        (elements(b"abc") + b"\x09\x00\x00\x00xy", "element 1: expected 9 bytes, 2 are left"),
        (elements(b"abc") + b"\xff\xff\xff\xffxy", "element 1: expected 4294967295 bytes, 2 are left"),
        (elements(b"a", b"b") + b"xy", "2 bytes after the last of 2 elements: expected none"),
        (elements(b"ok", b"a\xff"), "element 1 is not UTF-8 (invalid start byte at its byte 1)"),
        (elements(b"\xed\xa0\x80", b""), "element 0 is not UTF-8 (invalid continuation byte at its byte 0)"),
    ],
)
def test_raw_texts_that_do_not_add_up_are_refused(payload: bytes, text: str) -> None:
    assert refused(lambda: raw("BYTES", (1, 2), payload)) == ("raw_input_contents[0]", text)


def test_a_shape_that_asks_for_terabytes_of_texts_is_refused_before_they_are_made() -> None:
    assert refused(lambda: raw("BYTES", (2**40,), b"1234")) == (
        "inputs[0].shape",
        "[1099511627776]: expected at most 1048576 elements of BYTES",
    )
    assert refused(lambda: raw("BYTES", (2**20,), b"1234")) == (
        "raw_input_contents[0]",
        "4 bytes: expected a 4-byte length before each of 1048576 elements",
    )


@given(payload=st.binary(max_size=64), shape=st.lists(st.integers(-1, 4), max_size=3))
def test_any_bytes_are_a_tensor_or_refused(payload: bytes, shape: list[int]) -> None:
    for kind in TYPES.values():
        with contextlib.suppress(BadInput):
            assert decode_raw(kind, shape, payload, 0).shape == tuple(shape)


# Wrong typed values


@pytest.mark.parametrize("name", RAW_ONLY)
def test_half_precision_cannot_travel_typed(name: str) -> None:
    assert refused(lambda: typed(name, (1,), fp32_contents=[1.0])) == (
        "inputs[2].contents",
        f"{name} has no typed contents: expected raw_input_contents",
    )


@pytest.mark.parametrize("name", TYPED)
def test_the_field_of_another_type_is_refused(name: str) -> None:
    other = "fp64_contents" if name != "FP64" else "fp32_contents"
    assert refused(lambda: typed(name, (1,), **{other: [1]})) == (
        f"inputs[2].contents.{other}",
        f"expected {name} in {TYPES[name].contents}",
    )


def test_two_fields_are_refused() -> None:
    field, _ = refused(lambda: typed("FP32", (1,), fp32_contents=[1], fp64_contents=[1]))
    assert field == "inputs[2].contents.fp64_contents"


@pytest.mark.parametrize("name", TYPED)
def test_a_wrong_number_of_values_is_refused_with_both_numbers(name: str) -> None:
    field = TYPES[name].contents
    assert field is not None
    value: object = b"1" if name == "BYTES" else 1
    expected = f"inputs[2].contents.{field}"
    assert refused(lambda: typed(name, (2, 2))) == (expected, f"0 values: expected 4 for {name} [2, 2]")
    assert refused(lambda: typed(name, (2, 2), **{field: [value] * 5})) == (
        expected,
        f"5 values: expected 4 for {name} [2, 2]",
    )


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("INT8", 128, "-128 to 127"),
        ("INT8", -129, "-128 to 127"),
        ("INT16", -32769, "-32768 to 32767"),
        ("UINT8", 256, "0 to 255"),
        ("UINT16", 65536, "0 to 65535"),
    ],
)
def test_a_value_beyond_its_type_is_refused(name: str, value: int, limits: str) -> None:
    """INT8 and INT16 travel in 32 bits: what does not fit must not wrap around."""
    field = TYPES[name].contents
    assert field is not None
    assert refused(lambda: typed(name, (3,), **{field: [0, 1, value]})) == (
        f"inputs[2].contents.{field}[2]",
        f"{value}: expected {limits} ({name})",
    )


def test_a_typed_text_that_is_not_utf8_is_refused() -> None:
    assert refused(lambda: typed("BYTES", (2,), bytes_contents=[b"ok", b"\x80"])) == (
        "inputs[2].contents.bytes_contents",
        "element 1 is not UTF-8 (invalid start byte at its byte 0)",
    )
