"""The gate lets in as many calls as it has places, callers in turn, and loses no place."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator

import pytest

from ortmesh.errors import Cancelled, Expired
from ortmesh.front.call import Call
from ortmesh.front.pool import Pool
from ortmesh.serving.gate import Gate


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(1, 1)
    yield made
    made.close()


class Visits:
    """Calls that go through a gate; each stays until it is let out."""

    def __init__(self, gate: Gate, pool: Pool) -> None:
        self.gate = gate
        self.pool = pool
        self.inside: list[str] = []
        self.entered: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.exits: dict[str, asyncio.Event] = {}
        self.calls: dict[str, Call] = {}

    async def come(self, name: str, priority: int = 0) -> None:
        """A visit, by its caller's first letter: `a1` and `a2` are of caller a."""
        self.exits[name] = asyncio.Event()
        self.calls[name] = Call("/test.Test/Test", pool=self.pool, caller=name[0], priority=priority)
        self.tasks[name] = asyncio.create_task(self._visit(name))
        await asyncio.sleep(0)

    async def leave(self, name: str) -> None:
        self.exits[name].set()
        await asyncio.gather(self.tasks[name], return_exceptions=True)

    async def _visit(self, name: str) -> None:
        async with self.gate.place(self.calls[name]):
            self.inside.append(name)
            self.entered.append(name)
            await self.exits[name].wait()
            self.inside.remove(name)


async def test_as_many_are_inside_as_there_are_places(pool: Pool) -> None:
    visits = Visits(Gate(2), pool)
    for name in ("a1", "a2", "a3"):
        await visits.come(name)
    assert visits.inside == ["a1", "a2"]
    await visits.leave("a1")
    assert visits.inside == ["a2", "a3"]
    for name in ("a2", "a3"):
        await visits.leave(name)
    await visits.come("a4")
    assert visits.inside == ["a4"]
    await visits.leave("a4")


async def test_one_callers_flood_does_not_keep_another_out(pool: Pool) -> None:
    visits = Visits(Gate(1), pool)
    for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
        await visits.come(name)
    for name in ("a1", "a2", "b1", "a3", "b2", "a4"):
        assert visits.inside == [name]
        await visits.leave(name)


async def test_higher_priority_goes_first(pool: Pool) -> None:
    visits = Visits(Gate(1), pool)
    for name, priority in (("a1", 0), ("a2", 0), ("b1", 5)):
        await visits.come(name, priority)
    for name in ("a1", "b1", "a2"):
        await visits.leave(name)
    assert visits.entered == ["a1", "b1", "a2"]


async def test_a_caller_that_leaves_while_it_waits_costs_no_place(pool: Pool) -> None:
    visits = Visits(Gate(1), pool)
    for name in ("a1", "a2", "a3"):
        await visits.come(name)
    visits.tasks["a2"].cancel()
    await visits.leave("a1")
    assert visits.inside == ["a3"]
    await visits.leave("a3")


async def test_a_place_given_to_a_caller_that_leaves_is_passed_on(pool: Pool) -> None:
    """It leaves between being told of its place and taking it."""
    visits = Visits(Gate(1), pool)
    async with visits.gate.place(Call("/test.Test/Test", pool=pool)):
        for name in ("a1", "a2"):
            await visits.come(name)
    visits.tasks["a1"].cancel()
    await asyncio.gather(visits.tasks["a1"], return_exceptions=True)
    await asyncio.sleep(0)
    assert visits.inside == ["a2"]
    await visits.leave("a2")


async def test_a_failure_inside_frees_the_place(pool: Pool) -> None:
    gate, call = Gate(1), Call("/test.Test/Test", pool=pool)
    with pytest.raises(ValueError, match="inside"):
        async with gate.place(call):
            raise ValueError("inside")
    async with gate.place(call):
        pass


async def test_a_call_that_is_over_gets_no_place(pool: Pool) -> None:
    gate = Gate(1)
    with pytest.raises(Expired):
        async with gate.place(Call("/test.Test/Test", pool=pool, deadline=-math.inf)):
            raise AssertionError
    left = Call("/test.Test/Test", pool=pool)
    left.cancel()
    with pytest.raises(Cancelled):
        async with gate.place(left):
            raise AssertionError
    async with gate.place(Call("/test.Test/Test", pool=pool)):
        pass


async def test_work_in_the_pool_keeps_its_place_until_its_thread_is_done(pool: Pool) -> None:
    """Whoever asked for it may leave at once, but nobody takes the place of what still runs."""
    gate, call, loop = Gate(1), Call("/test.Test/Test", pool=pool), asyncio.get_running_loop()
    began, go_on = asyncio.Event(), threading.Event()

    def work() -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait(60)

    left = asyncio.create_task(gate.in_pool(call, work))
    await began.wait()
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    visits = Visits(gate, pool)
    await visits.come("a1")
    assert visits.inside == []
    go_on.set()
    await visits.leave("a1")
    assert visits.entered == ["a1"]


async def test_work_in_the_pool_that_fails_frees_its_place(pool: Pool) -> None:
    gate, call = Gate(1), Call("/test.Test/Test", pool=pool)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            await gate.in_pool(call, int, "a")
    assert await gate.in_pool(call, int, "7") == 7


async def test_work_in_the_pool_of_a_call_that_is_over_does_not_begin(pool: Pool) -> None:
    gate, over = Gate(1), Call("/test.Test/Test", pool=pool, deadline=-math.inf)
    with pytest.raises(Expired):
        await gate.in_pool(over, int, "7")
    assert await gate.in_pool(Call("/test.Test/Test", pool=pool), int, "7") == 7
