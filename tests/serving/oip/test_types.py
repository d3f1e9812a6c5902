"""Every data type goes through a real graph, raw and typed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ortmesh.serving.tensors import TYPES
from ortmesh.serving.types import Array
from tests.serving.oip.calls import Caller, Request, Response, raw_request

pytestmark = pytest.mark.asyncio(loop_scope="session")


def values(name: str) -> st.SearchStrategy[Array]:
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=4)
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    return hnp.arrays(TYPES[name].dtype, shapes, elements=texts if name == "BYTES" else None)


@pytest.mark.parametrize("name", TYPES)
async def test_every_type_goes_through_a_model_raw(name: str, ask: Caller) -> None:
    """Bit for bit, the direct way where there is one, the coroutine's always."""
    requests: list[Any] = []

    @settings(max_examples=15)
    @given(array=values(name))
    def collect(array: Array) -> None:
        requests.append(raw_request(f"identity-{name.lower()}", {"x": (name, array)}, id="7"))

    collect()
    for request in requests:
        answers = [await ask("ModelInfer", request)]
        reply = ask.direct(request)
        assert (reply is None) == (name == "BYTES")
        if reply is not None:
            answers.append(Response.FromString(await asyncio.wrap_future(reply.payload)))
        for answer in answers:
            assert answer.raw_output_contents == request.raw_input_contents
            assert (answer.outputs[0].name, answer.outputs[0].datatype) == ("y", name)
            assert answer.outputs[0].shape == request.inputs[0].shape
            assert not answer.outputs[0].HasField("contents")
            assert (answer.model_name, answer.model_version, answer.id) == (request.model_name, "1", "7")


@pytest.mark.parametrize("name", [name for name, kind in TYPES.items() if kind.contents])
async def test_every_type_goes_through_a_model_typed(name: str, ask: Caller) -> None:
    """A typed request is answered typed; it is never direct."""
    field = TYPES[name].contents
    assert field is not None
    request = Request(model_name=f"identity-{name.lower()}", id="8")
    some = [b"a\0b", "é".encode()] if name == "BYTES" else [0, 1]
    getattr(request.inputs.add(name="x", datatype=name, shape=[2, 1]).contents, field).extend(some)
    assert ask.direct(request) is None
    answer = await ask("ModelInfer", request)
    assert list(getattr(answer.outputs[0].contents, field)) == some
    assert list(answer.outputs[0].shape) == [2, 1]
    assert not answer.raw_output_contents
    assert answer.id == "8"
