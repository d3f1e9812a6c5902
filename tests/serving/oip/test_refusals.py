"""What ModelInfer refuses, and how it names the field."""

from __future__ import annotations

import asyncio

import pytest

from ortmesh.errors import BadInput, OrtmeshError
from ortmesh.serving.oip_request import MAX_ROWS
from tests.serving.oip.calls import Caller, Request, pair, refused, typed_pair

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_unknown_input_is_refused_with_a_near_name(ask: Caller) -> None:
    request = pair()
    request.inputs[1].name = "rigth"
    assert await refused(ask, request) == (
        "inputs[1].name",
        "'rigth' is unknown (did you mean 'right'?): expected one of 'left', 'right'",
    )


async def test_megabytes_of_a_name_are_not_repeated(ask: Caller) -> None:
    request = pair()
    request.inputs[1].name = "x" * 1_000_000
    _, text = await refused(ask, request)
    assert len(text) < 300
    request = pair()
    request.inputs[1].datatype = "x" * 1_000_000
    _, text = await refused(ask, request)
    assert len(text) < 300


async def test_an_input_that_is_missing_is_named(ask: Caller) -> None:
    request = pair()
    del request.inputs[0]
    assert await refused(ask, request) == ("inputs", "expected also 'left' FP32 [-1, 3]")
    assert await refused(ask, Request(model_name="sums")) == (
        "inputs",
        "expected also 'left' FP32 [-1, 3], 'right' FP32 [-1, 3]",
    )


async def test_an_input_given_twice_is_refused(ask: Caller) -> None:
    request = pair()
    request.inputs[1].name = "left"
    assert await refused(ask, request) == ("inputs[1].name", "'left' is given twice")


async def test_another_type_is_refused(ask: Caller) -> None:
    request = pair()
    request.inputs[1].datatype = "FP64"
    assert await refused(ask, request) == ("inputs[1].datatype", "'FP64': expected 'right' FP32 [-1, 3]")


@pytest.mark.parametrize("shape", [[3], [1, 1, 3], [1, 4], []])
async def test_another_shape_is_refused(shape: list[int], ask: Caller) -> None:
    request = pair()
    request.inputs[0].shape[:] = shape
    assert await refused(ask, request) == ("inputs[0].shape", f"{shape}: expected 'left' FP32 [-1, 3]")


async def test_a_negative_size_is_not_taken_for_a_free_one(ask: Caller) -> None:
    request = pair()
    request.inputs[0].shape[:] = [-1, 3]
    assert await refused(ask, request) == ("inputs[0].shape", "[-1, 3]: expected sizes that are not negative")


async def test_rows_that_disagree_between_inputs_are_refused(ask: Caller) -> None:
    request = pair(2)
    request.inputs[1].shape[:] = [1, 3]
    assert await refused(ask, request) == (
        "inputs[1].shape",
        "1 rows along axis 0: expected 2 as in the inputs before it",
    )


async def test_a_request_has_rows_but_not_too_many(ask: Caller) -> None:
    assert await refused(ask, pair(0)) == ("inputs[0].shape", "no rows along axis 0: expected at least 1")
    assert await refused(ask, pair(MAX_ROWS + 1)) == (
        "inputs[0].shape",
        f"{MAX_ROWS + 1} rows along axis 0: expected at most {MAX_ROWS}",
    )
    assert (await ask("ModelInfer", pair(MAX_ROWS))).outputs[0].shape[0] == MAX_ROWS


async def test_missing_and_surplus_buffers_are_refused(ask: Caller) -> None:
    request = pair()
    request.raw_input_contents.append(b"")
    field = "raw_input_contents"
    assert await refused(ask, request) == (field, "3 buffers: expected 2, one for each of `inputs`")
    del request.raw_input_contents[1:]
    assert await refused(ask, request) == (field, "1 buffers: expected 2, one for each of `inputs`")
    del request.raw_input_contents[:]
    assert await refused(ask, request) == (
        "inputs[0].contents.fp32_contents",
        "0 values: expected 3 for FP32 [1, 3]",
    )


async def test_raw_and_typed_values_together_are_refused(ask: Caller) -> None:
    request = pair()
    request.inputs[1].contents.fp32_contents.extend([1, 2, 3])
    assert await refused(ask, request) == (
        "inputs[1].contents",
        "raw_input_contents is used: expected no contents beside it",
    )


async def test_the_direct_way_refuses_as_the_coroutine_does(ask: Caller) -> None:
    request = pair()
    request.raw_input_contents[1] = bytes(11)
    with pytest.raises(BadInput, match=r"raw_input_contents\[1\]: 11 bytes: expected 12 for FP32 \[1, 3\]"):
        ask.direct(request)


async def test_wrong_bytes_are_refused_by_their_buffer(ask: Caller) -> None:
    request = pair()
    request.raw_input_contents[1] = bytes(11)
    assert await refused(ask, request) == ("raw_input_contents[1]", "11 bytes: expected 12 for FP32 [1, 3]")


async def test_wrong_typed_values_are_refused_by_their_field(ask: Caller) -> None:
    """They are found in the pool, and are the caller's error all the same."""
    request = typed_pair()
    request.inputs[1].contents.int_contents.append(1)
    assert await refused(ask, request) == (
        "inputs[1].contents.int_contents",
        "expected FP32 in fp32_contents",
    )


async def test_an_output_that_the_model_does_not_have_is_refused(ask: Caller) -> None:
    request = pair()
    request.outputs.add(name="sum")
    request.outputs.add(name="produkt")
    assert await refused(ask, request) == (
        "outputs[1].name",
        "'produkt' is unknown (did you mean 'product'?): expected one of 'sum', 'product'",
    )
    request.outputs[1].name = "sum"
    assert await refused(ask, request) == ("outputs[1].name", "'sum' is asked for twice")


@pytest.mark.parametrize(
    ("model", "version", "code"),
    [
        ("sum", "", "NOT_FOUND"),
        ("sums", "9", "NOT_FOUND"),
        ("", "", "NOT_FOUND"),
        ("broken", "", "FAILED_PRECONDITION"),
    ],
)
async def test_a_model_that_is_not_served_is_told_before_its_tensors_are_read(
    model: str, version: str, code: str, ask: Caller
) -> None:
    request = pair(model=model, model_version=version)
    for way in (lambda: ask("ModelInfer", request), lambda: asyncio.to_thread(ask.direct, request)):
        with pytest.raises(OrtmeshError) as caught:
            await way()
        assert caught.value.code == code
