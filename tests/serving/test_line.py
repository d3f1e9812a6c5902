"""The line: turns among a caller's priorities, whatever their items cost and however they come."""

from __future__ import annotations

import math
from collections import Counter
from itertools import cycle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.serving.batcher.book import CostBook
from ortmesh.serving.batcher.line import PRIORITY_WEIGHT, Line
from ortmesh.serving.batcher.policy import CostAware
from ortmesh.serving.types import Item
from ortmesh.serving.warmup import Capture

LOW, NORMAL, HIGH = -1, 0, 1


def add(line: Line, priority: int, price: float = 1.0, caller: str = "") -> Item:
    item = Item(
        {"x": np.zeros((1, 1), np.float32)},
        answer=Capture(),
        owner=SimpleNamespace(cancelled=False, admitted=False),
        deadline=math.inf,
        priority=priority,
        caller=caller,
    )
    line.append(item, price)
    return item


def take(line: Line) -> Item:
    """One item, as a slot that gets free takes it."""
    (item,) = window = line.first(1)
    line.take(window, window, ())
    return item


def priorities_taken(line: Line, count: int) -> list[int]:
    return [take(line).priority for _ in range(count)]


def test_a_slot_at_a_time_the_higher_go_before_the_lower() -> None:
    line = Line()
    for priority in (LOW, LOW, NORMAL, NORMAL, HIGH, HIGH):
        add(line, priority)
    assert priorities_taken(line, 6) == [HIGH, HIGH, NORMAL, NORMAL, LOW, LOW]


def test_a_lower_ones_first_item_comes_after_four_of_the_higher() -> None:
    line = Line()
    for priority in [NORMAL] * 2 + [HIGH] * 8:
        add(line, priority)
    assert priorities_taken(line, 10) == [HIGH, HIGH, HIGH, HIGH, NORMAL] * 2


def test_a_long_urgent_item_goes_before_short_ones() -> None:
    line = Line()
    for _ in range(100):
        add(line, NORMAL, price=1)
    long = add(line, HIGH, price=1000)
    assert take(line) is long


@pytest.mark.parametrize("prices", [(1, 1, 1), (100, 1, 7), (1, 7, 100)])
def test_of_the_time_each_priority_has_four_parts_of_the_next_lower_ones(prices: tuple[int, int, int]) -> None:
    """All three wait at all times: sixteen, four and one of twenty-one parts."""
    line, used = Line(), Counter[int]()
    price = dict(zip((LOW, NORMAL, HIGH), prices, strict=True))
    for priority in [*price] * 2:
        add(line, priority, price[priority])
    while used.total() < 21_000:
        item = take(line)
        used[item.priority] += price[item.priority]
        add(line, item.priority, price[item.priority])
    for priority, part in ((HIGH, 16), (NORMAL, 4), (LOW, 1)):
        assert used[priority] == pytest.approx(part * 1000, abs=500)


def test_urgent_calls_that_come_one_at_a_time_leave_the_others_a_fifth() -> None:
    """Each finds no other urgent one waiting."""
    line, taken = Line(), Counter[int]()
    for _ in range(50):
        add(line, NORMAL)
    urgent = add(line, HIGH)
    for _ in range(100):
        item = take(line)
        taken[item.priority] += 1
        if item is urgent:
            urgent = add(line, HIGH)
    assert taken == {HIGH: 80, NORMAL: 20}


@pytest.mark.parametrize("comes", [LOW, HIGH])
def test_a_priority_that_comes_back_starts_where_the_others_stand(comes: int) -> None:
    """Its silence is neither saved up nor held against it: it goes on as it would have begun."""
    begins, returns = Line(), Line()
    for line, normal in ((begins, 10), (returns, 110)):
        for _ in range(normal):
            add(line, NORMAL)
    add(returns, comes)
    assert comes in priorities_taken(returns, 101)
    for line in (begins, returns):
        for _ in range(10):
            add(line, comes)
    assert priorities_taken(returns, 20) == priorities_taken(begins, 20)


prices = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@given(prices, prices, prices)
def test_whatever_items_cost_no_priority_falls_behind_by_more_than_one(
    low: list[int], normal: list[int], high: list[int]
) -> None:
    """While all wait, what two have used by their weights never differs by more than the dearest item is to the
    lowest."""
    line, used = Line(), Counter[int]()
    coming = {LOW: cycle(low), NORMAL: cycle(normal), HIGH: cycle(high)}
    for priority in [*coming] * 2:
        add(line, priority, next(coming[priority]))
    for _ in range(60):
        item = take(line)
        add(line, item.priority, next(coming[item.priority]))
        used[item.priority] += int(item.price)
        weighted = [used[priority] / PRIORITY_WEIGHT**priority for priority in coming]
        assert max(weighted) - min(weighted) <= max(*low, *normal, *high) / PRIORITY_WEIGHT**LOW


shapes = st.tuples(st.sampled_from([LOW, NORMAL, HIGH]), st.integers(1, 50), st.sampled_from("abc"))


@given(st.lists(shapes, min_size=1, max_size=40), st.integers(0, 40))
def test_what_is_first_is_what_is_taken_one_by_one(shape: list[tuple[int, int, str]], before: int) -> None:
    """From the beginning, and after some have run."""
    line = Line()
    for priority, price, caller in shape:
        add(line, priority, price, caller)
    for _ in range(min(before, len(line) - 1)):
        take(line)
    expected = line.first(len(line))
    assert [take(line) for _ in range(len(line))] == expected


def test_what_was_used_before_costs_were_known_holds_up_nobody_after() -> None:
    """Prices are seconds all the time: else the rows that a batch brought to one would count as so many seconds."""
    book, line, taken = CostBook([1]), Line(), Counter[str]()
    policy = CostAware(book, sized=False)

    def come(caller: str) -> Item:
        return add(line, NORMAL, price=policy.price(add(Line(), NORMAL)), caller=caller)

    batch = [come("early") for _ in range(16)]
    come("early"), come("late")
    line.take(line.first(18), batch, ())
    book.measured({(1, 1): 0.002})
    for _ in range(100):
        item = take(line)
        taken[item.caller] += 1
        come(item.caller)
    assert taken["early"] > 30
