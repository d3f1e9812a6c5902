"""ModelMeter: what the batcher and the executor of one model version tell. Stage: batcher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from threading import Lock

from ortmesh.telemetry import instruments
from ortmesh.telemetry.series import Distribution, Labels, Point


class ModelMeter:
    """The `ortmesh.serving.types.Meter` of a model version. Thread-safe; 0.5 to 1.5 µs a call."""

    __slots__ = ("_dropped", "_labels", "_lock", "_padding", "_queue", "_rows", "_seconds", "_state")

    def __init__(self, model: str, version: str) -> None:
        self._labels: Labels = {"model": model, "version": version}
        self._lock = Lock()
        self._queue = Distribution(instruments.QUEUE.bounds)
        self._seconds = Distribution(instruments.COMPUTE.bounds)
        self._rows = Distribution(instruments.BATCH_SIZE.bounds)
        self._padding = Distribution(instruments.BATCH_PADDING.bounds)
        self._dropped: Counter[str] = Counter()
        self._state: str | None = None

    def batch(self, rows: int, padded_share: float, compute_seconds: float) -> None:
        """A batch ran: its rows, the share of its cells that was padding, its time in the executor."""
        with self._lock:
            self._rows.record(rows)
            self._padding.record(padded_share)
            self._seconds.record(compute_seconds)

    def queued(self, seconds: float) -> None:
        """An item waited this long before it was taken."""
        with self._lock:
            self._queue.record(seconds)

    def dropped(self, reason: str) -> None:
        """An item was dropped before it cost anything: `cancelled`, `expired`, `overloaded`."""
        with self._lock:
            self._dropped[reason] += 1

    def state(self, state: str | None) -> None:
        """Where the version stands; None once it is gone."""
        with self._lock:
            self._state = state

    def read(self) -> Iterator[Point]:
        """The version's series now. A distribution without values is left out."""
        with self._lock:
            taken = [
                (instruments.QUEUE, self._queue.read()),
                (instruments.COMPUTE, self._seconds.read()),
                (instruments.BATCH_SIZE, self._rows.read()),
                (instruments.BATCH_PADDING, self._padding.read()),
            ]
            dropped, state = dict(self._dropped), self._state
        yield from (Point(instrument, self._labels, value) for instrument, value in taken if value.count)
        for reason, count in dropped.items():
            yield Point(instruments.DROPPED, {**self._labels, "reason": reason}, count)
        if state is not None:
            for name in instruments.STATES:
                yield Point(instruments.MODEL_STATE, {**self._labels, "state": name}, int(name == state))
