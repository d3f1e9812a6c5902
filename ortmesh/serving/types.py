"""Item, and Pile and Executor as Protocols: all that the batcher and the executors share. Stage: batcher."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from ortmesh.errors import Cancelled, Expired
from ortmesh.serving.text_meter import NoTextMeter, TextMeter

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]
"""Tensors by their names in the graph, each with its batch axis, e.g. `{"image": [1, 3, 224, 224]}`."""


class Owner(Protocol):
    """Whoever asked for the work: `ortmesh.front.call.Call` in a service."""

    admitted: bool
    """True once a pile took work of it: no later work of it is refused, in this pile or another. Piles set it."""

    @property
    def cancelled(self) -> bool:
        """True once nobody waits for the answer any more."""


class Answer(Protocol):
    """Where an item's outputs go. Called by the executor's thread; must not block nor raise."""

    def emit(self, outputs: Tensors) -> None:
        """One more piece of an answer that comes in pieces; `finish` still follows."""

    def finish(self, outputs: Tensors) -> None:
        """The answer, or the last piece."""

    def fail(self, error: BaseException) -> None:
        """No answer, and why."""


EARLY = 0.1
"""Of its time: a caller that leaves when no more is left leaves because of its deadline."""


class Alike(NamedTuple):
    """A group of items of equal shapes, which are computed in these: never padded in size."""

    shared: Hashable
    shapes: Hashable


class Item:
    """One piece of work for one model: what is stacked with others into a batch. Ends exactly once."""

    __slots__ = (
        "answer",
        "arrival",
        "caller",
        "deadline",
        "done",
        "group",
        "hopeless",
        "nbytes",
        "outputs",
        "owner",
        "price",
        "priority",
        "rows",
        "size",
        "solo",
        "taken",
        "tensors",
        "why",
    )

    def __init__(
        self,
        tensors: Tensors,
        *,
        answer: Answer,
        owner: Owner,
        deadline: float,
        rows: int = 1,
        size: int = 0,
        group: Hashable = None,
        solo: bool = False,
        priority: int = 0,
        caller: str = "",
        outputs: Collection[str] | None = None,
    ) -> None:
        self.tensors = tensors
        self.outputs = outputs or None
        """Those that its answer needs; None for all. What nobody in a batch needs is not read back from a device."""
        self.rows = rows
        """How many rows it has along the batch axis."""
        self.size = size
        """Its padded length or resolution: what makes an item costly. Items of one size stack without padding."""
        self.group = group
        """Only items of one group share a batch: `Alike` where nothing may be padded."""
        self.solo = solo
        """True when it must run alone (BYTES tensors, unknown axes)."""
        nbytes = 0
        for array in tensors.values():  # `sum` over a generator takes twice as long
            nbytes += array.nbytes
        self.nbytes = nbytes
        self.arrival = time.monotonic()
        self.deadline = deadline
        """`time.monotonic()` seconds; infinite for none."""
        self.priority = priority
        self.caller = caller
        self.price = 0.0
        """What it takes of its caller's share; the pile sets it."""
        self.owner = owner
        self.answer = answer
        self.taken = 0.0
        """When an executor took it; 0 while it waits."""
        self.hopeless = False
        """True when its time was thought to be too short and nothing else waited: that it is late teaches nothing."""
        self.why = "busy"
        """Why it waits: `free` (it does not), `busy` (all executors compute), `passed_over` (others were chosen)."""
        self.done = False

    @property
    def cancelled(self) -> bool:
        """True when its result would reach nobody."""
        return self.owner.cancelled

    @property
    def expired(self) -> bool:
        """True when its deadline has passed."""
        return self.deadline <= time.monotonic()

    @property
    def late(self) -> bool:
        """True when its deadline has passed, or its caller left so shortly before that it seems to watch it itself."""
        left = self.deadline - time.monotonic()
        return left <= 0 or (self.cancelled and left < EARLY * (self.deadline - self.arrival))

    def check(self) -> None:
        """Raises Cancelled or Expired when it is worth no more work."""
        if self.cancelled:
            raise Cancelled("the caller left")
        if self.expired:
            raise Expired("the deadline passed while the request was computed")

    def emit(self, outputs: Tensors) -> None:
        """One more piece."""
        if not self.done:
            self.answer.emit(outputs)

    def finish(self, outputs: Tensors) -> None:
        """Ends the item with its outputs. A second end is ignored."""
        if not self.done:
            self.done = True
            self.answer.finish(outputs)

    def fail(self, error: BaseException) -> None:
        """Ends the item with an error. A second end is ignored."""
        if not self.done:
            self.done = True
            self.answer.fail(error)


class Pile(Protocol):
    """Prepared items of one model, from which a free executor pulls. Thread-safe."""

    def __len__(self) -> int:
        """How many wait."""

    def submit(self, item: Item) -> None:
        """Adds an item; never blocks. Overloaded when a bound is reached, unless its owner was admitted before;
        NotReady when closed."""

    def submit_many(self, items: Sequence[Item]) -> None:
        """Adds all or none."""

    def take(self, limit: int, wait: float | None = None) -> list[Item] | None:
        """The items that the policy chose, at most `limit` rows, marked as taken.

        Blocks until there is work, or for `wait` seconds (then an empty list). None once the pile is closed and
        empty: the executor ends.
        """

    def take_first(self, accept: Callable[[Item], bool], wait: float | None = None) -> Item | None:
        """For executors that let items in one by one: the first in fair order of those that are accepted, of each
        caller only its first, marked as taken. `accept` is asked with the pile's lock held.

        Blocks until there is work, or for `wait` seconds; None when there is none, or none is accepted.
        """

    def drop_unwanted(self) -> None:
        """Ends what waits and nobody waits for any more: for executors that take nothing for long."""

    @property
    def closed(self) -> bool:
        """True when nothing waits and nothing will."""


class Executor(Protocol):
    """One model version on one device, in a thread of its own."""

    def serve(self, pile: Pile) -> None:
        """Takes items whenever there is room, also between steps; ends each one alone. Returns when the pile closes.

        An exception that leaves it means that the executor is broken: the model becomes not ready and the
        executor is made anew.
        """

    def interrupt(self) -> None:
        """Ends what it computes, and whatever it would compute later; from any thread."""

    def interrupt_unwanted(self) -> float:
        """Ends what it computes when nobody waits for it; for how many seconds it has not heeded that, else 0.

        From any thread.
        """


class Meter(Protocol):
    """Where the batcher and the executors report what they did: metrics of one model version. Thread-safe, cheap."""

    @property
    def texts(self) -> TextMeter:
        """Where an engine reports the texts that it generates."""

    def batch(self, rows: int, padded_share: float, compute_seconds: float) -> None:
        """A batch ran: its rows, the share of its cells that was padding, its time in the executor."""

    def queued(self, seconds: float, reason: str) -> None:
        """An item waited this long before it was taken: `free` (an executor waited for it), `busy` (all computed),
        `passed_over` (others were chosen before it)."""

    def dropped(self, reason: str) -> None:
        """An item was dropped before it cost anything: `cancelled`, `expired`, `overloaded`."""

    def costs(self, table: CostTable | None) -> None:
        """Where to read what batches cost; None when that is not known."""


class CostTable(Protocol):
    """What batches of one model version cost, as known now: `ortmesh.serving.batcher.book.CostBook`."""

    @property
    def speed(self) -> float:
        """How many times what was measured at first a run takes now; 0 while nothing is known."""

    def table(self) -> Sequence[tuple[int, int, float]]:
        """(size, rows, seconds of a run); size 0 where all items cost the same."""

    def choices(self) -> Sequence[tuple[int, int, float]]:
        """(size, rows, rows a second): the batch in which a row of each size costs least."""


Cell = tuple[int, int]
"""Rows and size of a batch."""


class CostBook(CostTable, Protocol):
    """What executors tell of a version's costs. Thread-safe: its executors share one."""

    @property
    def stale(self) -> bool:
        """True when they should be measured, or measured anew, once there is time."""

    def measured(self, cells: Mapping[Cell, float], *, whole: bool = True) -> None:
        """Takes over what a measurement found, in place of what was known; not `whole`: for the time being."""

    def passed(self, seconds: float) -> None:
        """So long after a run the next one began, while more waited."""

    def learn(self, rows: int, size: int, seconds: float) -> None:
        """Takes the time of one run into account."""

    def ended(self, *, late: bool) -> None:
        """An answer that had a deadline was made, too late or in time."""

    def to_json(self) -> Mapping[str, Any]:
        """What the next start begins with; empty while nothing whole is known."""

    def read(self, written: Mapping[str, Any]) -> bool:
        """Takes over what `to_json` wrote; False when it is nothing, or not of this model."""


class NoMeter:
    """A meter that forgets: for tests and tools."""

    texts: TextMeter = NoTextMeter()

    def batch(self, rows: int, padded_share: float, compute_seconds: float) -> None:
        """Forgets."""

    def queued(self, seconds: float, reason: str) -> None:
        """Forgets."""

    def dropped(self, reason: str) -> None:
        """Forgets."""

    def costs(self, table: CostTable | None) -> None:
        """Forgets."""
