"""Study: how one executor finds out what batches of its model cost, and where that is kept. Stage: executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ortmesh.serving.executor.measure import Measuring
from ortmesh.serving.executor.stage import MEASURING
from ortmesh.serving.kept import Kept
from ortmesh.serving.types import Cell, CostBook

FIRST_SECONDS = 0.15
"""What a load may take for it: enough for the sizes that tell most. The rest is measured while nothing waits."""


@dataclass(slots=True)
class Study:
    """Of one model version where it is served; its first executor carries it on."""

    costs: CostBook
    kept: Kept
    begin: Callable[[], Measuring]
    """A new measurement, on that executor's session."""
    told: Callable[[], None] = lambda: None
    """Called in the executor's thread when the costs have changed by more than a live run."""

    def first(self) -> None:
        """At the load: what was kept, else some cells in a short time."""
        if self.costs.read(self.kept.read()):
            return
        with MEASURING.taken():
            measuring = self.begin()
            measuring.run(FIRST_SECONDS)
        self.costs.measured(measuring.seconds, whole=False)

    def take_over(self, found: Mapping[Cell, float]) -> bool:
        """After a whole measurement; False when it found nothing."""
        self.costs.measured(found)
        self.keep()
        self.told()
        return bool(found)

    def keep(self) -> None:
        """Writes down what is known, live runs included."""
        if written := self.costs.to_json():
            self.kept.update(written)
