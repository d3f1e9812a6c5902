"""The best grouping of a bench is the best there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.mixed.grouping import best_groups, padded_share, total

Groups = list[list[int]]

DEVICES = {
    "batches hardly help": lambda rows, longest: 1.0 + rows * longest,
    "a launch is dear": lambda rows, longest: 300.0 + rows * longest,
    "steps of eight rows": lambda rows, longest: 5.0 + longest * (1 + (rows - 1) // 8),
    "attention": lambda rows, longest: 2.0 + rows * (longest + longest**2 / 64),
}


def partitions(items: Sequence[int]) -> Iterator[Groups]:
    """Every way to put the items into batches, neighbours in size or not."""
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for at, group in enumerate(smaller):
            yield [*smaller[:at], [first, *group], *smaller[at + 1 :]]


@pytest.mark.parametrize("device", DEVICES)
@given(sizes=st.lists(st.integers(1, 128), min_size=1, max_size=7), most=st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_no_other_grouping_costs_less(device: str, sizes: list[int], most: int) -> None:
    """Among all partitions of the items, also those that mix lengths in any way."""
    seconds = DEVICES[device]
    allowed = (groups for groups in partitions(range(len(sizes))) if max(map(len, groups)) <= most)
    least = min(total(groups, sizes, seconds) for groups in allowed)
    assert total(best_groups(sizes, seconds, most), sizes, seconds) == pytest.approx(least)


@given(sizes=st.lists(st.integers(1, 128), max_size=40), most=st.integers(1, 8))
def test_every_item_is_in_one_batch_that_is_not_too_large(sizes: list[int], most: int) -> None:
    """The batches are a partition."""
    groups = best_groups(sizes, DEVICES["a launch is dear"], most)
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    assert all(1 <= len(group) <= most for group in groups)


def test_padding_is_counted_in_cells() -> None:
    """A text of 3 tokens beside one of 5 pads two of ten cells; one alone pads none."""
    assert padded_share([[0, 1], [2]], [3, 5, 4]) == pytest.approx(2 / 14)
