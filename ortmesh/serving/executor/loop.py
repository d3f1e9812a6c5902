"""What session and program executors share: the loop over a pile, and what follows a failed batch. Stage: executor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ortmesh.errors import ExecutorFailed, OrtmeshError
from ortmesh.serving.executor.failures import readable
from ortmesh.serving.executor.idle import Idle
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.types import Item, Pile

log = logging.getLogger(__name__)

Run = Callable[[Sequence[Item]], None]


def serve(pile: Pile, run: Run, limit: int, turn: Turn, idle: Idle) -> None:
    """Runs batches until the pile closes. ExecutorBroken when it can't go on; then its items have ended too."""
    wait = idle.begin()
    while (items := pile.take(limit, wait)) is not None:
        if not items:
            wait = idle.do()
            continue
        wait = idle.ran(_run(items, run, turn), time.monotonic())
        del items  # else the last request's tensors stay until the next one comes
    idle.end()


def _run(items: Sequence[Item], run: Run, turn: Turn) -> int:
    """Runs items, which have all ended then; how many bytes they were."""
    nbytes = 0
    turn.begin(items)
    try:
        run(items)
    finally:
        turn.end()
        for item in items:
            nbytes += item.nbytes
            if not item.done:
                item.fail(ExecutorFailed("the model's executor broke while it computed this request"))
    return nbytes


def one_by_one(items: Sequence[Item], run: Run, error: Exception) -> None:
    """After a batch failed: each item that nobody has given up runs alone, so that only the culprit gets the error."""
    left = [item for item in items if not item.done]
    log.warning("a batch of %d failed and %d are run one by one: %s", len(items), len(left), readable(error))
    for item in left:
        if is_wanted(item):
            run([item])


def is_wanted(item: Item) -> bool:
    """True while somebody waits for the item; else it has ended, with the reason."""
    try:
        item.check()
    except OrtmeshError as unwanted:
        item.fail(unwanted)
        return False
    return True
