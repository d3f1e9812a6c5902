"""ModelInfer's answers, and calls that end early."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc._utils import _get_inference_request

from ortmesh.errors import BadInput, Cancelled, Draining, Expired
from ortmesh.serving.models import Models
from ortmesh.serving.oip_infer import DIRECT_BYTES
from tests.serving.oip.calls import Caller, Request, Response, floats, pair, raw_request, typed_pair

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_outputs_are_answered_in_the_graphs_order_unless_some_are_asked_for(ask: Caller) -> None:
    request = pair()
    assert [output.name for output in (await ask("ModelInfer", request)).outputs] == ["sum", "product"]
    request.outputs.add(name="product")
    request.outputs.add(name="sum")
    answer = await ask("ModelInfer", request)
    assert [output.name for output in answer.outputs] == ["product", "sum"]
    assert [floats(payload) for payload in answer.raw_output_contents] == [[0, 10, 20], [10, 11, 12]]
    del request.outputs[1]
    reply = ask.direct(request)
    assert reply is not None
    answer = Response.FromString(await asyncio.wrap_future(reply.payload))
    assert [floats(payload) for payload in answer.raw_output_contents] == [[0, 10, 20]]


async def test_a_typed_request_is_answered_raw_when_an_output_has_no_typed_form(ask: Caller) -> None:
    """FP16 travels raw only, and an answer is raw throughout or not at all."""
    request = Request(model_name="halves")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.5, -2])
    answer = await ask("ModelInfer", request)
    assert [output.datatype for output in answer.outputs] == ["FP16", "FP32"]
    assert np.frombuffer(answer.raw_output_contents[0], np.float16).tolist() == [1.5, -2]
    assert floats(answer.raw_output_contents[1]) == [1.5, -2]
    request.outputs.add(name="same")
    answer = await ask("ModelInfer", request)
    assert list(answer.outputs[0].contents.fp32_contents) == [1.5, -2]


async def test_a_version_is_chosen_by_its_name(ask: Caller) -> None:
    """Without one the default answers, which is the newest; the answer says which it was."""
    assert (await ask("ModelInfer", pair())).model_version == "2"
    assert (await ask("ModelInfer", pair(model_version="1"))).model_version == "1"


async def test_parameters_are_ignored(ask: Caller) -> None:
    request = pair()
    request.parameters["priority"].int64_param = 3
    request.inputs[0].parameters["binary_data_size"].int64_param = 12
    assert (await ask("ModelInfer", request)).outputs


async def test_requests_that_pile_up_get_their_own_rows(ask: Caller) -> None:
    """Batches of several callers, some of more rows than the card's `max_rows`, are cut apart again."""
    requests = [pair(rows, model_version="1", id=str(rows)) for rows in (1, 2, 3, 1, 9, 2, 1, 1)]
    replies = [ask.direct(request) for request in requests]
    for request, reply in zip(requests, replies, strict=True):
        assert reply is not None
        answer = Response.FromString(await asyncio.wrap_future(reply.payload))
        rows = int(request.id)
        assert list(answer.outputs[0].shape) == [rows, 3]
        assert floats(answer.raw_output_contents[0]) == [value + 10 for value in range(rows * 3)]
        assert answer.id == request.id


async def test_a_shared_scalar_has_no_rows(ask: Caller) -> None:
    for factor in (2.0, 3.0):
        request = raw_request(
            "scaled",
            {"x": ("FP32", np.ones((5, 2), np.float32)), "factor": ("FP32", np.array(factor, np.float32))},
        )
        answer = await ask("ModelInfer", request)
        assert floats(answer.raw_output_contents[0]) == [factor] * 10


async def test_a_large_raw_request_is_left_to_the_pool(ask: Caller) -> None:
    array = np.arange(DIRECT_BYTES // 4 + 1, dtype=np.float32).reshape(1, -1)
    request = raw_request("identity-fp32", {"x": ("FP32", array)})
    assert ask.direct(request) is None
    answer = await ask("ModelInfer", request)
    assert answer.raw_output_contents[0] == array.tobytes()
    fits = raw_request("identity-fp32", {"x": ("FP32", array[:, :-1])})
    reply = ask.direct(fits)
    assert reply is not None
    await asyncio.wrap_future(reply.payload)


async def test_a_large_answer_to_a_small_request_does_not_hold_the_executor(ask: Caller) -> None:
    """The pool writes it; a small one is written at once."""
    for width, thread in ((DIRECT_BYTES // 4 // 64, "executor-grows@1"), (DIRECT_BYTES // 4 // 64 + 1, "ortmesh-pool")):
        array = np.arange(width, dtype=np.float32).reshape(1, -1)
        request = raw_request("grows", {"x": ("FP32", array)})
        reply = ask.direct(request)
        assert reply is not None
        answer = Response.FromString(await asyncio.wrap_future(reply.payload))
        assert answer.raw_output_contents[0] == array.tobytes() * 64
        assert answer == await ask("ModelInfer", request)
        assert reply.thread.startswith(thread)


async def test_texts_are_written_in_the_pool_when_they_are_asked_for(ask: Caller) -> None:
    request = raw_request("spells", {"x": ("FP32", np.array([[1, -2]], np.float32))})
    assert ask.direct(request) is None
    answer = await ask("ModelInfer", request)
    assert answer.raw_output_contents[0] == b"\1\0\0\0001\2\0\0\0-2"
    request.outputs.add(name="y")
    reply = ask.direct(request)
    assert reply is not None
    answer = Response.FromString(await asyncio.wrap_future(reply.payload))
    assert floats(answer.raw_output_contents[0]) == [-1, 2]


async def test_a_large_answer_that_cannot_be_written_is_its_callers_alone(
    ask: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the pool can't take it any more: the executor goes on."""

    def closed(*_: object, **__: object) -> None:
        raise Draining("closed")

    with monkeypatch.context() as patch:
        patch.setattr(ask.pool, "submit", closed)
        reply = ask.direct(raw_request("grows", {"x": ("FP32", np.zeros((1, 4096), np.float32))}))
        assert reply is not None
        with pytest.raises(Draining):
            await asyncio.wrap_future(reply.payload)
    assert ask.direct(raw_request("grows", {"x": ("FP32", np.zeros((1, 1), np.float32))})) is not None


async def test_tritonclient_reads_what_it_asked_for(ask: Caller) -> None:
    """The protocol's reference client writes the request and reads the answer."""
    left = triton.InferInput("left", [2, 3], "FP32")
    left.set_data_from_numpy(np.ones((2, 3), np.float32))
    right = triton.InferInput("right", [2, 3], "FP32")
    right.set_data_from_numpy(np.full((2, 3), 4, np.float32))
    wanted = [triton.InferRequestedOutput("product")]
    request = _get_inference_request("sums", [left, right], "", "a", wanted, 0, False, False, 0, None, None)
    answer = await ask("ModelInfer", Request.FromString(request.SerializeToString()))
    theirs = triton.service_pb2.ModelInferResponse.FromString(answer.SerializeToString())
    result = triton.InferResult(theirs)
    np.testing.assert_array_equal(result.as_numpy("product"), np.full((2, 3), 4, np.float32))
    assert result.as_numpy("sum") is None


async def test_a_call_that_is_over_is_not_computed(ask: Caller) -> None:
    """The direct way answers with why; the pool does not even decode."""
    gone = ask.call()
    gone.cancel()
    reply = ask.direct(pair(), gone)
    assert reply is not None
    with pytest.raises(Cancelled):
        await asyncio.wrap_future(reply.payload)
    late = ask.call(deadline=-math.inf)
    with pytest.raises(Expired):
        await ask.methods["ModelInfer"].handler(typed_pair(), late)  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [False, True])
async def test_a_call_gives_its_lease_back(wrong: bool, ask: Caller, models: Models) -> None:
    """Whether it was answered or refused: a version whose calls have ended can be unloaded."""
    model = models.find("sums", "1")
    request = pair(model_version="1")
    if wrong:
        request.raw_input_contents.pop()
        with pytest.raises(BadInput):
            ask.direct(request)
    else:
        reply = ask.direct(request)
        assert reply is not None
        await asyncio.wrap_future(reply.payload)
    assert model._leases == 0
