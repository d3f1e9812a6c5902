"""How the tests here call OIP's methods: as the front would, in the coroutine's way or the direct one."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from ortmesh.descriptors import oip
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.methods import Method
from ortmesh.front.pool import Pool
from ortmesh.serving.tensors import TYPES, encode_raw
from ortmesh.serving.types import Array

Request = oip("ModelInferRequest")
Response = oip("ModelInferResponse")


class Reply:
    """A direct answer, the bytes or the error, and the thread that gave it; the call ends with it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.payload: Future[bytes] = Future()
        self.thread = ""

    def finish(self, payload: bytes) -> None:
        self.thread = threading.current_thread().name
        self.call.end()
        self.payload.set_result(payload)

    def fail(self, error: BaseException) -> None:
        self.call.end()
        self.payload.set_exception(error)


class Caller:
    """Calls methods by their names, in the coroutine's way or the direct one."""

    def __init__(self, methods: dict[str, Method], pool: Pool) -> None:
        self.methods = methods
        self.pool = pool

    def call(self, **options: Any) -> Call:
        return Call("/test", pool=self.pool, **options)

    async def __call__(self, name: str, request: Any) -> Any:
        call = self.call()
        try:
            answer = await self.methods[name].handler(request, call)  # type: ignore[misc]
        finally:
            call.end()
        kind = oip(name + "Response")
        return kind.FromString(answer.SerializeToString())

    def direct(self, request: Any, call: Call | None = None) -> Reply | None:
        """None when the handler leaves the request to the coroutine; raises what it refuses."""
        direct, call = self.methods["ModelInfer"].direct, call or self.call()
        assert direct is not None
        reply, answers = Reply(call), False
        try:
            answers = direct(request, call, reply)
        finally:
            if not answers:
                call.end()
        return reply if answers else None


def raw_request(model: str, tensors: dict[str, tuple[str, Array]], **fields: Any) -> Any:
    request = Request(model_name=model, **fields)
    for name, (datatype, array) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(encode_raw(TYPES[datatype], array))
    return request


def pair(rows: int = 1, model: str = "sums", **fields: Any) -> Any:
    """A raw request to `sums`: left counts from 0, right is 10."""
    left = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    return raw_request(model, {"left": ("FP32", left), "right": ("FP32", np.full_like(left, 10))}, **fields)


def typed_pair() -> Any:
    request = Request(model_name="sums")
    for name, values in (("left", [0, 1, 2]), ("right", [10, 10, 10])):
        request.inputs.add(name=name, datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend(values)
    return request


def floats(payload: bytes) -> list[float]:
    return [float(value) for value in np.frombuffer(payload, np.float32)]


async def refused(ask: Caller, request: Any) -> tuple[str, str]:
    """The field and the text of the BadInput with which the request is answered."""
    with pytest.raises(BadInput) as caught:
        await ask("ModelInfer", request)
    (violation,) = caught.value.violations
    return violation.field, violation.description
