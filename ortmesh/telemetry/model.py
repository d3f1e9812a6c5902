"""ModelMeter: what the batcher and the executor of one model version tell. Stage: batcher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Protocol

from ortmesh.telemetry import instruments
from ortmesh.telemetry.series import Distribution, Labels, Point
from ortmesh.telemetry.texts import TextMeter


class CostTable(Protocol):
    """What batches of a model version cost, as known now: `ortmesh.serving.types.CostTable`."""

    @property
    def speed(self) -> float:
        """How many times what was measured at first a run takes now; 0 while nothing is known."""

    def table(self) -> Iterable[tuple[int, int, float]]:
        """(size, rows, seconds of a run); size 0 where all items cost the same."""

    def choices(self) -> Iterable[tuple[int, int, float]]:
        """(size, rows, rows a second): the batch in which a row of each size costs least."""


class ModelMeter:
    """The `ortmesh.serving.types.Meter` of a model version. Thread-safe; 0.5 to 1.5 µs a call."""

    __slots__ = (
        "_about",
        "_costs",
        "_dropped",
        "_labels",
        "_lock",
        "_padding",
        "_queues",
        "_rows",
        "_seconds",
        "_state",
        "texts",
    )

    def __init__(self, model: str, version: str) -> None:
        self._labels: Labels = {"model": model, "version": version}
        self._lock = Lock()
        self._queues = {reason: Distribution(instruments.QUEUE.bounds) for reason in instruments.WAITS}
        self._seconds = Distribution(instruments.COMPUTE.bounds)
        self._rows = Distribution(instruments.BATCH_SIZE.bounds)
        self._padding = Distribution(instruments.BATCH_PADDING.bounds)
        self._dropped: Counter[str] = Counter()
        self._state: str | None = None
        self._about: Labels = {}
        self._costs: CostTable | None = None
        self.texts = TextMeter(self._labels)
        """Those of its engine."""

    def batch(self, rows: int, padded_share: float, compute_seconds: float) -> None:
        """A batch ran: its rows, the share of its cells that was padding, its time in the executor."""
        with self._lock:
            self._rows.record(rows)
            self._padding.record(padded_share)
            self._seconds.record(compute_seconds)

    def queued(self, seconds: float, reason: str) -> None:
        """An item waited this long before it was taken: `free` (an executor waited for it), `busy` (all computed),
        `passed_over` (others were chosen before it)."""
        with self._lock:
            self._queues[reason].record(seconds)

    def dropped(self, reason: str) -> None:
        """An item was dropped before it cost anything: `cancelled`, `expired`, `overloaded`."""
        with self._lock:
            self._dropped[reason] += 1

    def costs(self, table: CostTable | None) -> None:
        """Where to read what batches cost; None when that is not known."""
        with self._lock:
            self._costs = table

    def state(self, state: str | None, provider: str = "", precision: str = "") -> None:
        """Where the version stands, None once it is gone; and on what it runs: ONNX Runtime's provider, and the
        precision of most of its weights."""
        with self._lock:
            self._state = state
            self._about = {"provider": provider, "precision": precision}

    def read(self) -> Iterator[Point]:
        """The version's series now. A distribution without values is left out."""
        with self._lock:
            queues = {reason: queue.read() for reason, queue in self._queues.items()}
            taken = [
                (instruments.COMPUTE, self._seconds.read()),
                (instruments.BATCH_SIZE, self._rows.read()),
                (instruments.BATCH_PADDING, self._padding.read()),
            ]
            dropped, state, costs, about = dict(self._dropped), self._state, self._costs, self._about
        for reason, queue in queues.items():
            if queue.count:
                yield Point(instruments.QUEUE, {**self._labels, "reason": reason}, queue)
        yield from (Point(instrument, self._labels, value) for instrument, value in taken if value.count)
        for reason, count in dropped.items():
            yield Point(instruments.DROPPED, {**self._labels, "reason": reason}, count)
        if state is not None:
            for name in instruments.STATES:
                yield Point(instruments.MODEL_STATE, {**self._labels, "state": name}, int(name == state))
        if state == "READY":
            yield Point(instruments.MODEL_INFO, {**self._labels, **about}, 1)
        if costs is not None and state == "READY":
            yield from self._read_costs(costs)
        yield from self.texts.read(serves=state == "READY")

    def _read_costs(self, costs: CostTable) -> Iterator[Point]:
        for size, rows, seconds in costs.table():
            yield Point(instruments.BATCH_COST, {**self._labels, "size": str(size), "rows": str(rows)}, seconds)
        for size, rows, _ in costs.choices():
            yield Point(instruments.BATCH_BEST, {**self._labels, "size": str(size)}, rows)
        if costs.speed:
            yield Point(instruments.COST_FACTOR, self._labels, costs.speed)
