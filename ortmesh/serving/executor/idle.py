"""Idle: what an executor does while nothing waits: it gives memory back, and measures what batches cost.
Stage: executor.
"""

from __future__ import annotations

from ortmesh.serving.executor.measure import Measuring
from ortmesh.serving.executor.stage import MEASURING
from ortmesh.serving.executor.study import Study
from ortmesh.serving.resident import Holder

QUIET_SECONDS = 2.0
"""Nothing is measured until so long after the load: others may be busy."""
GAP_SECONDS = 0.25
"""Later on so long is enough: a model that is called once a second is measured too."""
BETWEEN_SECONDS = 0.01
"""Between two runs: time for a request."""
AGAIN_SECONDS = 1.0
"""Another executor measures: it is asked again then."""


class Idle:
    """Belongs to the executor's thread. Each method says for how long nothing must come until `do` is to be called;
    None: not before the next run."""

    def __init__(self, holder: Holder, study: Study | None = None) -> None:
        self._holder = holder
        self._study = study
        self._measuring: Measuring | None = None
        self._idled = False
        """True when it kept what it held, since that was little."""

    def begin(self) -> float | None:
        """The executor begins to serve."""
        return QUIET_SECONDS if self._wants_to_measure else None

    def runs(self) -> None:
        """A run begins: what it takes is not what the process holds at rest, should another measure that meanwhile."""
        self._idled = False
        self._holder.holds = True

    def ran(self, nbytes: int, now: float) -> float:
        """A run of inputs of so many bytes ended at `now`."""
        self._holder.ran(nbytes, now)
        return GAP_SECONDS if self._wants_to_measure else self._holder.IDLE_SECONDS

    def do(self) -> float | None:
        """Nothing waits."""
        if self._study is not None and self._wants_to_measure:
            return self._measure(self._study)
        self._holder.give_back(little=self._idled)
        if not self._holder.holds or self._idled:
            return None
        self._idled = True
        return self._holder.LONG_SECONDS - self._holder.IDLE_SECONDS

    def end(self) -> None:
        """The executor serves no more."""
        if self._study is not None:
            self._study.keep()

    @property
    def _wants_to_measure(self) -> bool:
        return self._study is not None and self._study.costs.stale

    def _measure(self, study: Study) -> float:
        """One run: what comes meanwhile waits for it."""
        with MEASURING.free() as free:
            if not free:
                self._holder.give_back()
                return AGAIN_SECONDS
            self._measuring = self._measuring or study.begin()
            self._holder.holds = True
            self._measuring.step()
        if not self._measuring.done:
            return BETWEEN_SECONDS
        found, self._measuring = self._measuring.seconds, None
        if not study.take_over(found):
            self._study = None  # the model refuses its own sample: it can't be asked
        return self._holder.IDLE_SECONDS
