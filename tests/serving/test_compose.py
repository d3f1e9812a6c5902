"""Which items run next: never worse than any contiguous batch, nobody starves, no deadline is broken by a neighbour."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh.serving.batcher import compose as module
from ortmesh.serving.batcher.compose import compose
from ortmesh.serving.batcher.costs import Costs, Grid
from ortmesh.serving.types import Item
from ortmesh.serving.warmup import Capture

LAUNCH = 0.004
"""Seconds that a run takes however little it computes: a device on which batches pay."""


def costs(launch: float = LAUNCH, a_cell: float = 0.0001, max_rows: int = 8) -> Costs:
    rows, sizes = (1, 2, 4, max_rows), (8, 64, 128)
    return Costs(Grid(rows, sizes, {(b, s): launch + a_cell * b * s for b in rows for s in sizes}))


def item(size: int, arrival: float = 0.0, deadline: float = math.inf, rows: int = 1, **kwargs: object) -> Item:
    owner = SimpleNamespace(cancelled=False, admitted=False)
    tensors = {"x": np.zeros((rows, 1), np.float32)}
    made = Item(tensors, answer=Capture(), owner=owner, deadline=deadline, rows=rows, size=size, **kwargs)  # type: ignore[arg-type]
    made.arrival = arrival
    return made


items = st.builds(
    item,
    size=st.integers(1, 128),
    arrival=st.floats(0, 9),
    deadline=st.one_of(st.just(math.inf), st.floats(10.001, 11)),
    rows=st.integers(1, 9),
    group=st.sampled_from(["a", "a", "a", "b"]),
    solo=st.sampled_from([False, False, False, False, True]),
    priority=st.integers(-1, 1),
)


@given(st.lists(items, min_size=1, max_size=24), st.integers(1, 16), st.sampled_from([0.0, LAUNCH, 0.05]))
def test_a_batch_is_one_that_can_run(waiting: list[Item], limit: int, launch: float) -> None:
    """Of one group, within the limit, in order, without twins; what must run alone does; no neighbour makes it late."""
    table = costs(launch)
    chosen = compose(waiting, table, limit, 10.0)
    assert chosen == sorted(set(chosen))
    assert chosen
    batch = [waiting[index] for index in chosen]
    if len(batch) == 1:
        return
    rows = sum(each.rows for each in batch)
    assert rows <= min(limit, table.max_rows)
    assert len({each.group for each in batch}) == 1
    assert not any(each.solo for each in batch)
    seconds = table.seconds(rows, max(each.size for each in batch))
    assert all(10.0 + seconds <= each.deadline for each in batch)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 128), st.floats(9.9, 10)), min_size=2, max_size=9), st.sampled_from([0.0, LAUNCH])
)
def test_no_other_contiguous_batch_is_worth_more(shape: list[tuple[int, float]], launch: float) -> None:
    """Against every one of them, by the definition: the best density, then riders that join for no more than they would
    cost at best."""
    in_order = sorted(shape, key=lambda each: each[1])
    waiting, table, now = [item(size, arrival) for size, arrival in in_order], costs(launch), 10.0
    price = np.array([table.prices(np.array([each.size]))[0] for each in waiting])
    age = now - np.array([each.arrival for each in waiting])
    patience = price.mean() + module.AGES_OF_PATIENCE * age.mean()
    value = price**module.SIZE_EXPONENT * (1 + age / patience)
    order = sorted(range(len(waiting)), key=lambda index: waiting[index].size)

    def density(low: int, high: int) -> float:
        chosen = order[low : high + 1]
        return float(value[chosen].sum() / table.seconds(len(chosen), waiting[order[high]].size))

    def spare(low: int, high: int) -> float:
        chosen = order[low : high + 1]
        return float(price[chosen].sum() - table.seconds(len(chosen), waiting[order[high]].size))

    windows = [(low, high) for low in range(len(order)) for high in range(low, min(len(order), low + table.max_rows))]
    must = order.index(int(age.argmax())) if age.max() > module.OLD * patience else None
    held = [window for window in windows if must is None or window[0] <= must <= window[1]]
    best = max(density(*window) for window in held)
    chosen = compose(waiting, table, 32, now)
    assert any(
        chosen == sorted(order[low : high + 1])
        and spare(low, high) == pytest.approx(max(spare(*wider) for wider in _around(windows, core)), abs=1e-9)
        for core in held
        if density(*core) == pytest.approx(best, rel=1e-9)
        for low, high in _around(windows, core)
    )


def _around(windows: list[tuple[int, int]], core: tuple[int, int]) -> list[tuple[int, int]]:
    return [window for window in windows if window[0] <= core[0] and window[1] >= core[1]]


def test_where_batches_cost_what_their_items_cost_sizes_are_not_mixed() -> None:
    waiting = [item(128), item(8), item(128), item(8)]
    chosen = compose(waiting, costs(launch=1e-6), 8, 0.01)
    assert len({waiting[index].size for index in chosen}) == 1


def test_where_a_run_costs_the_same_whatever_it_computes_all_go_together() -> None:
    waiting = [item(128), item(8), item(100), item(30)]
    assert compose(waiting, costs(launch=0.1, a_cell=1e-9), 8, 0.01) == [0, 1, 2, 3]


def test_an_item_older_than_the_rest_goes_now() -> None:
    """However dear it is: short ones that keep coming must not starve it."""
    waiting = [item(128, arrival=0.0), *(item(8, arrival=9.99) for _ in range(30))]
    assert 0 in compose(waiting, costs(), 8, 10.0)


def test_where_several_callers_ask_a_batch_holds_up_the_next_one_no_longer_than_it_must() -> None:
    """Of eight alike one computes nine tenths of what all do together: alone they all go, beside others one."""
    waiting = [item(128, caller="a") for _ in range(8)]
    assert len(compose(waiting, costs(launch=0.001), 8, 0.01)) == 8
    assert len(compose(waiting, costs(launch=0.001), 8, 0.01, shared=True)) == 1


def test_where_batches_pay_callers_share_them_all_the_same() -> None:
    """A device that computes eight in little more than the time of one."""
    waiting = [item(128, caller="a") for _ in range(8)]
    assert len(compose(waiting, costs(launch=0.1, a_cell=1e-5), 8, 0.01, shared=True)) >= 6


def test_whose_turn_it_is_does_not_wait_for_the_company_of_longer_ones() -> None:
    """Padded to their size its turn would take ten times as long."""
    waiting = [item(8, caller="a"), *(item(128, caller="b") for _ in range(7))]
    assert compose(waiting, costs(), 8, 0.01, shared=True) == [0]


def test_whose_turn_it_is_takes_along_what_costs_nothing() -> None:
    """One run is the price, whoever is in it."""
    waiting = [item(8, caller="a"), *(item(8, caller="b") for _ in range(7))]
    assert compose(waiting, costs(launch=0.1, a_cell=1e-9), 8, 0.01, shared=True) == list(range(8))


@given(st.lists(st.tuples(st.integers(1, 128), st.sampled_from("abc")), min_size=2, max_size=24))
def test_of_several_callers_the_first_in_line_always_goes(described: list[tuple[int, str]]) -> None:
    """And its batch takes at most 1.5 times what it takes alone."""
    waiting, table = [item(size, caller=name) for size, name in described], costs()
    if len({name for _, name in described}) == 1:
        return
    chosen = [waiting[index] for index in compose(waiting, table, 8, 0.01, shared=True)]
    assert waiting[0] in chosen
    cost = table.seconds(len(chosen), max(each.size for each in chosen))
    assert cost <= 1.5 * table.seconds(1, waiting[0].size) + 1e-9


def test_a_higher_priority_goes_first_and_the_lower_waits_no_longer_for_ever() -> None:
    urgent = [item(8, arrival=9.99, priority=1) for _ in range(8)]
    assert compose([item(8, arrival=9.98), *urgent], costs(), 8, 10.0) == list(range(1, 9))
    assert 0 in compose([item(8, arrival=0.0), *urgent], costs(), 8, 10.0)


def test_an_item_that_a_neighbour_would_make_late_goes_without_it() -> None:
    free_to_join = [item(8), item(12)]
    assert compose(free_to_join, costs(), 8, 10.0) == [0, 1]
    pressed = [item(8, deadline=10.0 + LAUNCH + 0.001), item(12)]
    assert len(compose(pressed, costs(), 8, 10.0)) == 1
