"""What session and program executors share: the loop over a pile, and the judgement of a failure. Stage: executor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ortmesh.errors import ExecutorFailed, OrtmeshError
from ortmesh.serving.executor.failures import failure_of, readable
from ortmesh.serving.types import Item, Pile

log = logging.getLogger(__name__)

Run = Callable[[Sequence[Item]], None]


def serve(pile: Pile, run: Run, limit: int) -> None:
    """Runs batches until the pile closes. ExecutorBroken when the device failed; then its items have ended too."""
    while (items := pile.take(limit)) is not None:
        if not items:
            continue
        try:
            run(items)
        finally:
            for item in items:
                if not item.done:
                    item.fail(ExecutorFailed("the model's executor broke while it computed this request"))


def one_by_one(items: Sequence[Item], run: Run, error: Exception) -> None:
    """After a batch failed: each item that nobody has given up runs alone, so that only the culprit gets the error."""
    left = [item for item in items if not item.done]
    log.warning("a batch of %d failed and %d are run one by one: %s", len(items), len(left), readable(error))
    for item in left:
        try:
            item.check()
        except OrtmeshError as unwanted:
            item.fail(unwanted)
        else:
            run([item])


def judged(error: Exception, *, on_device: bool) -> OrtmeshError:
    """What the caller of the one failed item gets. Logs what is no fault of the caller's; may raise ExecutorBroken."""
    failure = failure_of(error, on_device=on_device)
    if isinstance(failure, ExecutorFailed):
        log.error("an item failed", exc_info=error)
    return failure
