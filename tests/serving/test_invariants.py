"""What holds whatever comes: nothing is lost or answered twice, nobody starves, is made late or changed by a neighbour.

Random streams of items run through the product's own pile and policies, on a clock of the test's.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh.errors import Cancelled, Expired
from ortmesh.serving.batcher import ArrivalOrder, CostAware, Pile, Policy
from ortmesh.serving.batcher.book import CostBook
from ortmesh.serving.batcher.compose import AGES_OF_PATIENCE, OLD
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.signature import signature_of
from ortmesh.serving.types import Item, NoMeter, Tensors
from tests.serving import graphs

ROWS, SIZES = (1, 2, 4, 8), (8, 64, 128)


def known(launch: float, a_cell: float) -> CostBook:
    book = CostBook(SIZES)
    book.measured({(rows, size): launch + a_cell * rows * size for rows in ROWS for size in SIZES})
    return book


class Ends:
    """An item's answer: counts how it ended."""

    def __init__(self) -> None:
        self.outputs: list[Tensors] = []
        self.errors: list[BaseException] = []

    def emit(self, outputs: Tensors) -> None:
        """No item here comes in pieces."""

    def finish(self, outputs: Tensors) -> None:
        self.outputs.append(outputs)

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)


@dataclass(frozen=True)
class Coming:
    """One item of a stream."""

    after: float
    size: int
    rows: int
    group: str
    priority: int
    caller: str
    patience: float
    """From its arrival to its deadline."""
    leaves: float
    """From its arrival until its caller leaves."""
    solo: bool


coming = st.builds(
    Coming,
    after=st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.3]),
    size=st.sampled_from([1, 8, 9, 40, 128]),
    rows=st.sampled_from([1, 1, 1, 2, 9]),
    group=st.sampled_from(["a", "a", "a", "b"]),
    priority=st.sampled_from([0, 0, 0, 1, -1]),
    caller=st.sampled_from(["", "x", "x", "y"]),
    patience=st.sampled_from([math.inf, math.inf, 0.05, 0.5]),
    leaves=st.sampled_from([math.inf, math.inf, math.inf, 0.01, 0.2]),
    solo=st.sampled_from([False, False, False, True]),
)
policies = st.sampled_from(
    [
        ArrivalOrder(),
        CostAware(known(0.004, 1e-5), sized=True),
        CostAware(known(1e-4, 1e-4), sized=True),
        CostAware(known(0.01, 1e-4), sized=False),
        CostAware(CostBook(SIZES), sized=True),
    ]
)
TRUTH = known(0.002, 3e-5)


class Stream:
    """Items that come, and an executor that takes what the policy says and needs what the truth says."""

    def __init__(self, stream: list[Coming], policy: Policy, limit: int) -> None:
        self.clock = SimpleNamespace(now=0.0)
        self.pile = Pile(policy=policy, clock=lambda: self.clock.now)
        self.limit = limit
        self.batches: list[tuple[float, list[Item]]] = []
        self.items: list[Item] = []
        at = 0.0
        for each in stream:
            at += each.after
            self.items.append(self._item(each, at))
        self._left = list(zip(stream, self.items, strict=True))

    def run(self) -> None:
        """Until nothing is left."""
        while self._left or len(self.pile):
            if not len(self.pile) and self._left:
                self.clock.now = max(self.clock.now, self._left[0][1].arrival)
            self._admit()
            if len(self.pile):
                self._take()

    def _take(self) -> None:
        batch = self._next()
        if batch:
            self.batches.append((self.clock.now, batch))
            self.clock.now += TRUTH.at_least(sum(item.rows for item in batch), max(item.size for item in batch))
            for item in batch:
                item.finish({})

    def _next(self) -> list[Item]:
        """`take` waits for work when it dropped all there was; here nothing more would come."""
        with self.pile._lock:
            chosen, dropped = self.pile._choose(self.limit)
        for item, error in dropped:
            item.fail(error)
        return chosen

    def _admit(self) -> None:
        while self._left and self._left[0][1].arrival <= self.clock.now:
            self.pile.submit(self._left.pop(0)[1])

    def _item(self, each: Coming, at: float) -> Item:
        owner = Owner(self.clock, at + each.leaves)
        item = Item(
            {"x": np.zeros((each.rows, 1), np.float32)},
            answer=Ends(),
            owner=owner,
            deadline=at + each.patience,
            rows=each.rows,
            size=each.size,
            group=each.group,
            solo=each.solo,
            priority=each.priority,
            caller=each.caller,
        )
        item.arrival = at
        return item


class Owner:
    """A caller that leaves at a time."""

    admitted = False

    def __init__(self, clock: SimpleNamespace, leaves: float) -> None:
        self._clock = clock
        self.leaves = leaves

    @property
    def cancelled(self) -> bool:
        return bool(self._clock.now >= self.leaves)


def ends_of(item: Item) -> Ends:
    assert isinstance(item.answer, Ends)
    return item.answer


streams = st.lists(coming, min_size=1, max_size=60)


@settings(max_examples=60)
@given(streams, policies, st.integers(1, 8))
def test_everything_that_comes_ends_exactly_once(stream: list[Coming], policy: Policy, limit: int) -> None:
    """Computed, or told why not: its caller left, or its time was too short."""
    going = Stream(stream, policy, limit)
    going.run()
    taken = Counter(id(item) for _, batch in going.batches for item in batch)
    for item in going.items:
        ends = ends_of(item)
        assert len(ends.outputs) + len(ends.errors) == 1
        assert taken[id(item)] == len(ends.outputs)
        assert all(isinstance(error, (Cancelled, Expired)) for error in ends.errors)
        if item.deadline == math.inf and item.owner.leaves == math.inf:  # type: ignore[attr-defined]
            assert ends.outputs


@settings(max_examples=60)
@given(streams, policies, st.integers(1, 8))
def test_nothing_is_begun_for_who_has_left_or_is_late(stream: list[Coming], policy: Policy, limit: int) -> None:
    going = Stream(stream, policy, limit)
    going.run()
    for at, batch in going.batches:
        assert all(item.deadline > at for item in batch)
        assert all(item.owner.leaves > at for item in batch)  # type: ignore[attr-defined]


@settings(max_examples=60)
@given(streams, st.integers(1, 8), st.sampled_from([(0.004, 1e-5), (1e-4, 1e-4)]))
def test_no_neighbour_makes_an_item_late(stream: list[Coming], limit: int, device: tuple[float, float]) -> None:
    """By what the policy knows: in a batch of several each item is done in time."""
    book = known(*device)
    going = Stream(stream, CostAware(book, sized=True), limit)
    going.run()
    for at, batch in going.batches:
        if len(batch) > 1:
            seconds = book.at_least(sum(item.rows for item in batch), max(item.size for item in batch))
            assert all(at + seconds <= item.deadline + 1e-9 for item in batch)


@settings(max_examples=60)
@given(streams, policies, st.integers(1, 8))
def test_equal_items_go_in_the_order_of_their_arrival(stream: list[Coming], policy: Policy, limit: int) -> None:
    alike = [
        Coming(each.after, each.size, 1, "a", each.priority, "", math.inf, math.inf, solo=False) for each in stream
    ]
    going = Stream(alike, policy, limit)
    going.run()
    order = {id(item): number for number, (_, batch) in enumerate(going.batches) for item in batch}
    for kind in {(item.size, item.priority) for item in going.items}:
        numbers = [order[id(item)] for item in going.items if (item.size, item.priority) == kind]
        assert numbers == sorted(numbers)


@settings(max_examples=60)
@given(streams, st.integers(1, 8), st.sampled_from([(0.004, 1e-5), (1e-4, 1e-4)]))
def test_nobody_is_passed_over_for_ever(stream: list[Coming], limit: int, device: tuple[float, float]) -> None:
    """An item that waits far longer than the others, by what they cost and how old they are, is in the next batch."""
    book = known(*device)
    alone = [Coming(each.after, each.size, 1, "a", 0, "", math.inf, math.inf, solo=False) for each in stream]
    going = Stream(alone, CostAware(book, sized=True), limit)
    going.run()
    assert book.costs is not None
    taken_at = {id(item): at for at, batch in going.batches for item in batch}
    for at, batch in going.batches:
        waiting = [item for item in going.items if item.arrival <= at <= taken_at[id(item)]][: 4 * limit]
        ages = [at - item.arrival for item in waiting]
        prices = [book.costs.price(item.size) for item in waiting]
        if max(ages) > OLD * (np.mean(prices) + AGES_OF_PATIENCE * np.mean(ages)):
            assert waiting[int(np.argmax(ages))] in batch


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> SessionExecutor:
    """A model whose items are padded."""
    path = graphs.masked_sum(tmp_path_factory.mktemp("masked"))
    card = Card.model_validate(
        {"name": "m", "family": "nlp", "inputs": {"x": {"pad_axis": 1}, "mask": {"pad_axis": 1}}}
    )
    session = Sessions(card.runtime, threads=1).open(Path(path))
    signature = signature_of(session.get_inputs(), session.get_outputs(), card)
    return SessionExecutor(session, signature, limit=8, meter=NoMeter())


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), seed=st.integers(0, 99), limit=st.integers(1, 8))
def test_no_result_depends_on_who_shares_the_batch(
    masked: SessionExecutor, lengths: list[int], seed: int, limit: int
) -> None:
    """Whole numbers, so that sums are exact: each item gets what it gets alone, to the bit."""
    draw = np.random.default_rng(seed)
    items = []
    for length in lengths:
        x = draw.integers(-9, 9, (1, length)).astype(np.float32)
        item = Item(
            {"x": x, "mask": np.ones_like(x)},
            answer=Ends(),
            owner=Owner(SimpleNamespace(now=0.0), math.inf),
            deadline=math.inf,
            size=length,
        )
        items.append(item)
    pile = Pile(policy=CostAware(known(0.004, 1e-5), sized=True))
    pile.submit_many(items)
    while len(pile):
        batch = pile.take(limit)
        assert batch
        masked.run(batch)
    for item in items:
        (outputs,) = ends_of(item).outputs
        np.testing.assert_array_equal(outputs["y"], item.tensors["x"].sum(axis=1))
