"""Parts: an item of many rows as several of less, so that others get their turns in between. Stage: task to batcher.

A model that batches answers each row by itself, so the rows of one item need not run together either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ortmesh.errors import OrtmeshError
from ortmesh.serving.executor.failures import failure_of
from ortmesh.serving.executor.stack import NotByRows, aligned, join, must_have_rows
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Array, Item, Tensors

HOLD_SECONDS = 0.05
"""What comes meanwhile waits for one part, not for the whole: so long at most, as far as costs are known."""
MOST_PARTS = 64
"""Of one item, unless they would be larger than a batch: each costs some 0.1 ms beside its run."""


@dataclass(frozen=True, slots=True)
class Splitting:
    """How the items of one model are split."""

    signature: Signature
    max_rows: int
    ahead: int
    """So many parts of an item wait or run at a time: as many as keep the executors busy."""
    seconds: Callable[[int, int], float]
    """Of a run of so many rows of a size; 0 where that is not known."""

    def splits(self, item: Item) -> bool:
        """True for an item that is to run in parts."""
        return item.rows > 1 and not item.solo and item.rows > self.rows_each(item)

    def rows_each(self, item: Item) -> int:
        """Rows of a part."""
        rows = self.max_rows
        while rows > 1 and self.seconds(rows, item.size) > HOLD_SECONDS:
            rows //= 2
        return min(max(rows, -(-item.rows // MOST_PARTS)), self.max_rows)


class Parts:
    """One item's. Thread-safe: the parts end in executors' threads."""

    def __init__(
        self,
        item: Item,
        splitting: Splitting,
        submit: Callable[[Sequence[Item]], None],
        alone: Callable[[Item, str], None],
    ) -> None:
        """`submit` puts items on the pile, `alone(item, why)` runs one whole: when a part has not its rows."""
        self._item = item
        self._splitting = splitting
        self._submit = submit
        self._alone = alone
        rows = splitting.rows_each(item)
        self._starts = range(0, item.rows, rows)
        self._rows = rows
        self._lock = threading.Lock()
        self._begun = 0
        self._done: dict[int, Tensors] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.over = False
        """True once the item has ended: what waits of it is not computed."""

    def begin(self) -> None:
        """Submits the first parts; what the pile raises leaves it. The others follow as these end."""
        self._submit(self._following(self._splitting.ahead))

    def ended(self, start: int, part: Item, outputs: Tensors) -> None:
        """A part was computed."""
        try:
            must_have_rows(outputs, part.rows, self._splitting.signature)
            self._must_fit(outputs)
        except NotByRows as error:
            self._run_whole(str(error))
            return
        with self._lock:
            self._item.taken = self._item.taken or part.taken
            self._done[start] = {name: _alone(array) for name, array in outputs.items()}
            last = len(self._done) == len(self._starts)
            following = [] if self.over else self._following(1)
        if last:
            self._finish()
        elif following:
            try:
                self._submit(following)
            except OrtmeshError as error:
                self.failed(error)

    def failed(self, error: BaseException) -> None:
        """A part has ended without outputs, and so the item."""
        if self._is_over():
            self._item.fail(error)

    def _must_fit(self, outputs: Tensors) -> None:
        """NotByRows when a part's outputs have another shape than the others', rows apart: what is in them decides."""
        infos = self._splitting.signature.outputs
        shapes = {name: infos[name].shape_of_a_row(array) for name, array in outputs.items()}
        with self._lock:
            self._shapes = self._shapes or shapes
            fits = self._shapes == shapes
        if not fits:
            raise NotByRows("the shape of an output depends on what is in the rows")

    def _finish(self) -> None:
        if not self._is_over():
            return
        try:
            outputs = join([self._done[start] for start in self._starts], self._splitting.signature)
        except Exception as error:  # no memory for all of them: it is this item's failure, and not the executor's
            self._item.fail(failure_of(error, on_device=False))
        else:
            self._item.finish(outputs)

    def _run_whole(self, why: str) -> None:
        if self._is_over():
            self._alone(self._item, why)

    def _is_over(self) -> bool:
        """Marks the item as ended; False when it was before."""
        with self._lock:
            was, self.over = self.over, True
        return not was

    def _following(self, count: int) -> list[Item]:
        starts = self._starts[self._begun : self._begun + count]
        self._begun += len(starts)
        return [self._part(start) for start in starts]

    def _part(self, start: int) -> Item:
        whole = self._item
        answer = _Part(self, start)
        answer.item = Item(
            {name: self._slice(name, array, start) for name, array in whole.tensors.items()},
            answer=answer,
            owner=_Owner(self, whole),
            deadline=whole.deadline,
            rows=min(self._rows, whole.rows - start),
            size=whole.size,
            group=whole.group,
            priority=whole.priority,
            caller=whole.caller,
            outputs=whole.outputs,
        )
        return answer.item

    def _slice(self, name: str, array: Array, start: int) -> Array:
        axis = self._splitting.signature.inputs[name].batch_axis
        if axis is None:
            return array
        return aligned(array[(*(slice(None),) * axis, slice(start, start + self._rows))])


def _alone(array: Array) -> Array:
    """Without the rest of the batch of which it is a view: that would stay until the whole item is done."""
    whole = getattr(array.base, "nbytes", 0)
    return array.copy() if whole > array.nbytes else array


class _Part:
    """Where a part's outputs go."""

    def __init__(self, parts: Parts, start: int) -> None:
        self._parts = parts
        self._start = start
        self.item: Item | None = None
        """The part; not held beyond its end: its tensors would stay until Python looks for circles."""

    def emit(self, outputs: Tensors) -> None:
        """Sessions answer in one piece."""

    def finish(self, outputs: Tensors) -> None:
        """To the others."""
        part, self.item = self.item, None
        assert part is not None
        self._parts.ended(self._start, part, outputs)

    def fail(self, error: BaseException) -> None:
        """Ends the item."""
        self.item = None
        self._parts.failed(error)


class _Owner:
    """The item's owner, who also wants nothing more once the item has ended."""

    def __init__(self, parts: Parts, whole: Item) -> None:
        self._parts = parts
        self._whole = whole

    @property
    def cancelled(self) -> bool:
        """True when the part's outputs would reach nobody."""
        return self._parts.over or self._whole.cancelled

    @property
    def admitted(self) -> bool:
        """The owner's own."""
        return self._whole.owner.admitted

    @admitted.setter
    def admitted(self, value: bool) -> None:
        self._whole.owner.admitted = value
