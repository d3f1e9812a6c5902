"""Results come to the loop in as few wake-ups as their number allows."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ortmesh.serving.answers import Outbox
from ortmesh.serving.executor.engine.ask import Ask, TextItem
from ortmesh.serving.executor.engine.sampler import Sampling
from tests.nlp.tiny_llama import write_tiny_llama
from tests.serving.test_engine import Engine, Heard, prompt


class Told:
    """Something that is brought to the loop."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.come = asyncio.Event()

    def deliver(self) -> None:
        self.thread = threading.current_thread()
        self.come.set()


class Loop:
    """The running loop, and how often it was woken."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.woken = 0

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> asyncio.Handle:
        self.woken += 1
        return self._loop.call_soon_threadsafe(callback)


def in_thread(work: Callable[[], None]) -> None:
    """Until it is done, so that the loop stands still meanwhile."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def leave_all(outbox: Outbox, results: Sequence[Told]) -> None:
    for each in results:
        outbox.leave(each)


async def test_what_is_left_is_delivered_by_one_wake_up() -> None:
    loop: Any = Loop()
    outbox, results = Outbox(loop), [Told() for _ in range(16)]
    in_thread(lambda: leave_all(outbox, results))
    assert loop.woken == 0
    await asyncio.sleep(0)
    assert not any(each.thread for each in results)
    in_thread(outbox.wake)
    for each in results:
        await each.come.wait()
    assert {each.thread for each in results} == {threading.current_thread()}
    assert loop.woken == 1


async def test_nothing_that_was_left_wakes_nobody() -> None:
    loop: Any = Loop()
    Outbox(loop).wake()
    assert loop.woken == 0


async def test_what_is_put_takes_along_what_was_left() -> None:
    loop: Any = Loop()
    outbox, left, put = Outbox(loop), Told(), Told()
    in_thread(lambda: outbox.leave(left))
    in_thread(lambda: outbox.put(put))
    await put.come.wait()
    assert left.thread
    assert loop.woken == 1


def test_results_for_a_loop_that_is_closed_are_nobodys() -> None:
    loop = asyncio.new_event_loop()
    outbox, told = Outbox(loop), Told()
    loop.close()
    outbox.put(told)
    outbox.leave(told)
    outbox.wake()
    assert told.thread is None


def test_the_tokens_of_a_step_come_in_one_wake_up(tmp_path: Path) -> None:
    """When all texts have theirs."""
    heard = [Heard() for _ in range(5)]
    seen: list[list[int]] = []

    def wake() -> None:
        seen.append([len(each.tokens) for each in heard])

    asks = [Ask(prompt(1), 24, frozenset(), Sampling(seed=seed)) for seed in range(5)]
    engine = Engine(write_tiny_llama(tmp_path) / "model.onnx")
    try:
        engine.pile.submit_many(
            [
                TextItem(ask, answer=each, owner=each.owner, deadline=math.inf, wake=wake)
                for ask, each in zip(asks, heard, strict=True)
            ]
        )
        assert all(len(each.wait().tokens) == 24 for each in heard)
    finally:
        engine.stop()
    assert seen[-24:] == [[number] * 5 for number in range(1, 25)]
    assert len(seen) <= 25, "the prompt, which all share, is read in one step"
