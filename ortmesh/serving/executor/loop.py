"""The loop of session executors over a pile, and what follows a failed batch of any executor. Stage: executor."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ortmesh.errors import ExecutorFailed, OrtmeshError
from ortmesh.serving.executor.failures import readable
from ortmesh.serving.executor.idle import Idle
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.types import Item, Pile, Tensors

log = logging.getLogger(__name__)

Computed = tuple[Item, Tensors]
"""An item and its outputs, which it is still to be ended with."""
Compute = Callable[[Sequence[Item]], Sequence[Computed]]
"""Runs items; those that it does not return have ended."""


def serve(
    pile: Pile,
    compute: Compute,
    limit: Callable[[], int],
    turn: Turn,
    idle: Idle,
    passed: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Runs batches until the pile closes. ExecutorBroken when it can't go on; then its items have ended too.

    `passed` is told how long after a run the next one began, where more waited.

    While more waits than was computed, a batch's answers leave when the next batch is chosen: they wake threads that
    want the interpreter, and an executor that chooses among them stood still for 10 % of the time, at 16 texts in
    flight, instead of 3. While less waits, they leave before: whoever is answered may ask again, and a batch of what
    was left over would be a small one.
    """
    wait, computed, ended = idle.begin(), _NOTHING, math.inf
    try:
        while True:
            if len(pile) < len(computed):
                finish(computed)
                computed = _NOTHING
            waited = not len(pile)
            items = pile.take(limit(), 0.0 if computed else wait)
            finish(computed)
            if items is None:
                break
            if items:
                idle.runs()
                if not waited and ended < (now := time.monotonic()):
                    passed(now - ended)
                computed = _run(items, compute, turn)
                ended = time.monotonic()
                wait = idle.ran(sum(item.nbytes for item in items), ended)
            elif not computed:
                wait = idle.do()
            else:
                computed = _NOTHING
            del items  # else the last request's tensors stay until the next one comes
    finally:
        finish(computed)
    idle.end()


_NOTHING: Sequence[Computed] = ()


def finish(computed: Sequence[Computed]) -> None:
    """Ends items with their outputs. What has ended is left as it is."""
    for item, outputs in computed:
        item.finish(outputs)


def _run(items: Sequence[Item], compute: Compute, turn: Turn) -> Sequence[Computed]:
    """Runs items, which have all ended then but for those that are returned."""
    computed = _NOTHING
    turn.begin(items)
    try:
        computed = compute(items)
        return computed
    finally:
        turn.end()
        kept = {id(item) for item, _ in computed}
        fail_unended(item for item in items if id(item) not in kept)


def fail_unended(items: Iterable[Item]) -> None:
    """Nothing will be computed of them: those that have not ended fail."""
    for item in items:
        item.fail(ExecutorFailed("the model's executor broke while it computed this request"))


def one_by_one(items: Sequence[Item], run: Callable[[Sequence[Item]], None], error: Exception) -> None:
    """After a batch failed: each item that nobody has given up runs alone, so that only the culprit gets the error."""
    for item in still_wanted(items, error):
        run([item])


def still_wanted(items: Sequence[Item], error: Exception) -> Iterator[Item]:
    """After a batch failed: the items that are to run alone, each asked for when its turn comes."""
    left = [item for item in items if not item.done]
    log.warning("a batch of %d failed and %d are run one by one: %s", len(items), len(left), readable(error))
    yield from (item for item in left if is_wanted(item))


def is_wanted(item: Item) -> bool:
    """True while somebody waits for the item; else it has ended, with the reason."""
    try:
        item.check()
    except OrtmeshError as unwanted:
        item.fail(unwanted)
    return not item.done
