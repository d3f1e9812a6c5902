"""Judge: what the failures of one executor mean, one by one and in a row. Stage: executor."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ortmesh.errors import Cancelled, ExecutorFailed, OrtmeshError
from ortmesh.serving.executor.failures import ExecutorBroken, failure_of, readable

log = logging.getLogger(__name__)

Prove = Callable[[], BaseException | None]
"""Computes a sample that was computed before; what goes wrong with it, None when nothing does."""

PROOF_AFTER = 5
"""So many failures in a row, and the executor must show that it can compute at all."""


class Judge:
    """One caller's bad request and a broken session look alike: ONNX Runtime refuses both in the same words.

    What tells them apart is a sample that the model computed when it was loaded: while that still works, the
    callers are wrong, however many they are, and nobody can have a model restarted by sending nonsense.
    """

    def __init__(self, *, on_device: bool) -> None:
        self._on_device = on_device
        self._in_a_row = 0

    def succeeded(self) -> None:
        """A run ended well."""
        self._in_a_row = 0

    def failed(self, error: Exception, prove: Prove) -> OrtmeshError:
        """What the caller of the one failed item gets. Logs what is no fault of the caller's.

        ExecutorBroken when the device failed, or when the sample fails too.
        """
        failure = failure_of(error, on_device=self._on_device)
        if isinstance(failure, ExecutorFailed):
            log.error("an item failed", exc_info=error)
        if not isinstance(failure, Cancelled):
            self._in_a_row += 1
        if self._in_a_row >= PROOF_AFTER:
            self._in_a_row = 0
            wrong = prove()
            if wrong is not None and not isinstance(wrong, Cancelled):
                raise ExecutorBroken(f"every request fails, a sample that it computed before too: {readable(wrong)}")
        return failure
