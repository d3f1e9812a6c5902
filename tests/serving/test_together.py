"""Together: one answer of several items, whichever threads bring them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from ortmesh.errors import Cancelled
from ortmesh.front.call import Call
from ortmesh.serving.answers import Outbox
from ortmesh.serving.together import Together
from ortmesh.serving.types import Tensors


class Told:
    """What came of a call."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.errors: list[BaseException] = []

    def finish(self, payload: bytes) -> None:
        self.payloads.append(payload)

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)


def encoded(outputs: Sequence[Tensors]) -> bytes:
    return bytes([int(each["y"][0]) for each in outputs])


def of(number: int) -> Tensors:
    return {"y": np.array([number])}


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_it_answers_when_the_last_item_is_done_in_the_order_of_the_items(call: Call) -> None:
    told = Told()
    first, second, third = Together(3, call, told, Outbox(asyncio.get_running_loop()), encoded).answers()
    third.finish(of(3))
    first.finish(of(1))
    await settled()
    assert told.payloads == []
    second.finish(of(2))
    await settled()
    assert (told.payloads, told.errors) == ([bytes([1, 2, 3])], [])


async def test_the_first_error_is_the_answer(call: Call) -> None:
    told = Told()
    first, second, third = Together(3, call, told, Outbox(asyncio.get_running_loop()), encoded).answers()
    wrong = ValueError("first")
    second.fail(wrong)
    first.fail(ValueError("second"))
    third.finish(of(3))
    await settled()
    assert (told.payloads, told.errors) == ([], [wrong])


async def test_an_answer_that_can_not_be_encoded_is_an_error(call: Call) -> None:
    told = Told()
    (only,) = Together(1, call, told, Outbox(asyncio.get_running_loop()), encoded).answers()
    only.finish({})
    await settled()
    assert told.payloads == []
    assert isinstance(told.errors[0], KeyError)


async def test_a_caller_who_has_left_is_told_so_and_nothing_is_encoded(call: Call) -> None:
    told, encodings = Told(), list[int]()

    def encode(outputs: Sequence[Tensors]) -> bytes:
        encodings.append(len(outputs))
        return b""

    (only,) = Together(1, call, told, Outbox(asyncio.get_running_loop()), encode).answers()
    call.cancel()
    only.finish(of(1))
    await settled()
    assert (told.payloads, encodings) == ([], [])
    assert isinstance(told.errors[0], Cancelled)


async def test_pieces_are_not_what_it_takes(call: Call) -> None:
    (only,) = Together(1, call, Told(), Outbox(asyncio.get_running_loop()), encoded).answers()
    with pytest.raises(TypeError, match="pieces"):
        only.emit(of(1))


async def test_many_threads_bring_their_items_at_once(call: Call) -> None:
    loop, count = asyncio.get_running_loop(), 8
    outbox = Outbox(loop)
    for _ in range(100):
        told, gate = Told(), threading.Barrier(count)

        def bring(answer: object, number: int, gate: threading.Barrier = gate) -> None:
            gate.wait()
            answer.finish(of(number))  # type: ignore[attr-defined]

        answers = Together(count, call, told, outbox, encoded).answers()
        threads = [threading.Thread(target=bring, args=(each, number)) for number, each in enumerate(answers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await settled()
        assert (told.payloads, told.errors) == ([bytes(range(count))], [])
