"""Callers take turns, and calls begin on the loop a few at a time."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from ortmesh.front.turns import AT_ONCE, Entry, Turns


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_each_callers_own_come_in_their_order_and_callers_in_turns(callers: list[str]) -> None:
    turns: Turns[tuple[str, int]] = Turns()
    for number, caller in enumerate(callers):
        turns.append(caller, (caller, number))
    taken = []
    while turns:
        taken.append(turns.next())
    assert sorted(taken, key=lambda one: one[1]) == list(zip(callers, range(len(callers)), strict=True))
    for caller in "abc":
        own = [number for name, number in taken if name == caller]
        assert own == sorted(own)
    first_round = [name for name, _ in taken[: len(set(callers))]]
    assert len(set(first_round)) == len(first_round)


async def test_a_call_alone_begins_at_once() -> None:
    entry, begun = Entry(), []

    async def call() -> None:
        await entry.turn("a")
        begun.append("a")

    with contextlib.suppress(StopIteration):
        call().send(None)
    assert begun == ["a"]


async def test_who_comes_after_a_burst_begins_after_a_few_of_it() -> None:
    entry, begun = Entry(), []

    async def call(caller: str) -> None:
        await entry.turn(caller)
        begun.append(caller)

    async with asyncio.TaskGroup() as group:
        for _ in range(300):
            group.create_task(call("burst"))
        group.create_task(call("other"))
    assert len(begun) == 301
    assert begun.index("other") <= 2 * AT_ONCE


async def test_a_call_that_is_cancelled_while_it_waits_takes_nobodys_turn() -> None:
    entry, begun = Entry(), []

    async def call(number: int) -> None:
        await entry.turn("a")
        begun.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(3 * AT_ONCE)]
    await asyncio.sleep(0)
    for task in tasks[AT_ONCE : 2 * AT_ONCE]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert begun == [*range(AT_ONCE), *range(2 * AT_ONCE, 3 * AT_ONCE)]
