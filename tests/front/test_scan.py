"""The look at a message before it is parsed refuses what would grow, and nothing else."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from ortmesh.descriptors import oip
from ortmesh.errors import BadInput, MalformedMessage
from ortmesh.front.methods import bind, generated
from ortmesh.front.scan import check_fields, check_infer
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.vision.v1 import vision_pb2
from tests.front.echo import Echo

Contents = oip("InferTensorContents")


def test_a_million_empty_tensors_are_refused_without_being_made() -> None:
    payload = b"\x2a\x00" * 1_000_000
    tracemalloc.start()
    with pytest.raises(MalformedMessage, match="4096 fields"):
        check_infer(payload)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_million_dimensions_are_refused() -> None:
    request = oip("ModelInferRequest")(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1] * 1_000_000)
    with pytest.raises(BadInput, match="too many dimensions"):
        check_infer(request.SerializeToString())


@pytest.mark.parametrize("typed", [True, False])
def test_large_tensors_pass(typed: bool) -> None:
    values = np.arange(1_000_000, dtype=np.float32)
    request = oip("ModelInferRequest")(model_name="m")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 1_000_000])
    if typed:
        tensor.contents.fp32_contents.extend(values)
    else:
        request.raw_input_contents.append(values.tobytes())
    check_infer(request.SerializeToString())


def test_many_texts_pass() -> None:
    request = oip("ModelInferRequest")(model_name="m")
    tensor = request.inputs.add(name="x", datatype="BYTES", shape=[100_000])
    tensor.contents.bytes_contents.extend([b"text"] * 100_000)
    check_infer(request.SerializeToString())


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("INT64", {"int64_contents": [1] * 5_000_000}),
        ("UINT8", {"uint_contents": [1] * 5_000_000}),
        ("BYTES", {"bytes_contents": [b""] * 2_500_000}),
    ],
    ids=["INT64", "UINT8", "BYTES"],
)
def test_millions_of_small_values_are_refused_and_their_tensor_named(datatype: str, values: dict[str, Any]) -> None:
    """In memory they take up to sixteen times as much as on the wire; raw they take as much."""
    request = oip("ModelInferRequest")(model_name="m")
    request.inputs.add(name="small", datatype=datatype, shape=[1])
    request.inputs.add(name="many", datatype=datatype, shape=[1]).contents.MergeFrom(Contents(**values))
    with pytest.raises(BadInput, match=r"inputs\[1\]\.contents: more than 4194304 bytes"):
        check_infer(request.SerializeToString())


def test_few_long_texts_pass() -> None:
    request = oip("ModelInferRequest")(model_name="m")
    request.inputs.add(name="x", datatype="BYTES", shape=[20]).contents.bytes_contents.extend([b"x" * 1_000_000] * 20)
    check_infer(request.SerializeToString())


@pytest.mark.parametrize("junk", [b"\xff" * 100_000, b"\x2a\xff\xff\xff\x7f" + b"a" * 100_000])
def test_what_is_no_message_is_left_to_the_parser(junk: bytes) -> None:
    check_infer(junk)


def test_a_million_empty_pictures_are_refused_without_being_made() -> None:
    payload = b"\x12\x00" * 1_000_000
    tracemalloc.start()
    with pytest.raises(MalformedMessage, match="4096 fields"):
        check_fields(payload)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_every_method_is_scanned_before_it_is_parsed() -> None:
    """A method without a scan of its own has the common one."""
    (row,) = bind("ortmesh.vision.v1.VisionService", {"Embed": Echo().say}, messages=generated(vision_pb2))
    assert row.check is check_fields


def test_what_real_requests_are_passes() -> None:
    check_fields(EmbedRequest(texts=["x" * 1000] * 256).SerializeToString())


def test_sixteen_million_fields_in_four_thousand_tensors_take_no_time() -> None:
    payload = (b"\x2a\xc0\x3e" + b"\x12\x00" * 4000) * 4000
    start = time.process_time()
    with pytest.raises(BadInput, match="more than 65536 fields"):
        check_infer(payload)
    assert time.process_time() - start < 1
