"""Plan and answers: what a process of callers is told to do, and what it tells afterwards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

INFER = "/inference.GRPCInferenceService/ModelInfer"
EMBED = "/ortmesh.nlp.v1.NlpService/Embed"


@dataclass(frozen=True, slots=True)
class Plan:
    """Calls of one caller to one method: a steady rate, bursts, or so many in flight."""

    address: str
    path: str
    requests: tuple[str, ...]
    """Serialized requests in hex, which take turns."""
    calls: int = 0
    """At the rate, or in all bursts together; with `in_flight` as many as fit into `seconds`."""
    rate: float = 0.0
    """Calls a second; 0: all at once."""
    at_random: bool = False
    """True for calls that know nothing of each other (a Poisson process, the same each time); else as long after each
    other."""
    burst: int = 0
    """So many at once, `rate` of such bursts a second."""
    in_flight: int = 0
    """Each answer is followed by the next call."""
    seconds: float = 0.0
    """How long the calls in flight are kept up."""
    timeout: float = 30.0
    """Every call's deadline in seconds."""
    caller: str = ""
    """Who calls, as the gateway would say."""
    priority: str = ""
    """How urgent its calls are: `low`, `high`; usual ones where it is empty."""
    leave_after: float = 0.0
    """Every second call is left after so many seconds; 0: none."""
    channels: int = 4
    """Connections."""
    nice: int = 5
    """How far the callers stand back from the service, which has the same cores."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one call ended."""

    at: float
    """Its beginning, on the machine's monotonic clock."""
    seconds: float
    code: str
    retry_seconds: float | None = None
    """What google.rpc.RetryInfo said."""
    text: str = ""
    """What an error said."""

    @property
    def ok(self) -> bool:
        """True when the answer came within its deadline: later, the caller has an error already."""
        return self.code == "OK"


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of one plan."""

    all: Sequence[Answer]

    @property
    def codes(self) -> Counter[str]:
        """How often each code."""
        return Counter(each.code for each in self.all)

    @property
    def ok(self) -> list[Answer]:
        """Those that the caller wanted."""
        return [each for each in self.all if each.ok]

    @property
    def seconds(self) -> float:
        """From the first call's beginning to the last one's beginning: as long as calls came."""
        begins = [each.at for each in self.all]
        return max(begins, default=0.0) - min(begins, default=0.0)

    @property
    def rate(self) -> float:
        """Good answers a second while calls came."""
        return len(self.ok) / max(self.seconds, 1e-9)

    def percentile(self, percent: float) -> float:
        """Seconds of the good answers; nan without one."""
        took = sorted(each.seconds for each in self.ok)
        return took[min(len(took) - 1, int(len(took) * percent / 100))] if took else math.nan

    def since(self, at: float) -> Answers:
        """Of the calls that began later."""
        return Answers([each for each in self.all if each.at >= at])
