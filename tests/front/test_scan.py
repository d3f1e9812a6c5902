"""The look at a message before it is parsed refuses what would grow, and nothing else."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ortmesh.descriptors import oip
from ortmesh.errors import BadInput, MalformedMessage
from ortmesh.front.scan import check_infer


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


@pytest.mark.parametrize("junk", [b"\xff" * 100_000, b"\x2a\xff\xff\xff\x7f" + b"a" * 100_000])
def test_what_is_no_message_is_left_to_the_parser(junk: bytes) -> None:
    check_infer(junk)
