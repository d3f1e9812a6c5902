"""The flood: far more calls than a model can serve, all with a deadline that few of them can keep."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.flood.bodies import infer
from bench.flood.callers import Call, call
from bench.flood.plan import INFER, Answer, Answers, Plan
from bench.flood.service import Counted, Service

PROCESSES = 4
"""Of callers, when all calls come at once."""
NOBODY = "nobody"
"""No model's name."""
IN_FLIGHT = 4
"""Enough to keep a model busy, few enough for each to be answered soon."""


@dataclass(frozen=True, slots=True)
class Flood:
    """What became of the calls, by what their callers heard and by what the service counted."""

    pace: str
    timeout: float
    answers: Answers
    counted: Counted
    before: Answers
    """Unloaded, just before: `IN_FLIGHT` calls at a time without deadlines."""
    after: Answers
    """The same just after."""
    beside: Answers
    """The same beside as many calls a second as the flood's, to a model that is not there: what machine the callers and
    the front leave to the model. None where the flood comes at once."""
    resident: tuple[int, int, int]
    """Bytes of the service before, at most, and after."""
    again: Answer
    """One usual call as soon as the flood was over."""

    @property
    def unloaded(self) -> float:
        """Good answers a second without a flood."""
        return (self.before.rate + self.after.rate) / 2

    @property
    def left(self) -> float:
        """Good answers a second beside as many calls that cost no model; nan where that was not measured."""
        return self.beside.rate if self.beside.all else math.nan

    @property
    def goodput(self) -> float:
        """Good answers a second, from the first call until the last one's deadline."""
        return len(self.answers.ok) / (self.answers.seconds + self.timeout)

    @property
    def late(self) -> int:
        """Rows that were computed for a caller who had gone by then: their deadline passed meanwhile."""
        return self.counted.rows - len(self.answers.ok)

    @property
    def refused(self) -> list[Answer]:
        """Calls that were told to come again."""
        return [each for each in self.answers.all if each.code == "RESOURCE_EXHAUSTED"]

    @property
    def untold(self) -> int:
        """Refused calls that were not told when."""
        return sum(each.retry_seconds is None for each in self.refused)

    @property
    def retry_seconds(self) -> tuple[float, float]:
        """The shortest and the longest delay that was told; nan without one."""
        told = [each.retry_seconds for each in self.refused if each.retry_seconds is not None]
        return min(told, default=math.nan), max(told, default=math.nan)

    @property
    def strange(self) -> Counter[str]:
        """Ends that no call of a flood may have."""
        usual = ("OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
        return Counter({code: count for code, count in self.answers.codes.items() if code not in usual})


def flood(
    service: Service,
    *,
    model: str,
    calls: int,
    rate: float,
    timeout: float,
    seconds: float,
    processes: int = 1,
    channels: int = 4,
    call: Call = call,
) -> Flood:
    """So many calls, at so many a second or all at once for 0, each process on so many connections; for `seconds` it
    measures without them, if at all."""

    def plan(asked: str = model, **how: float) -> Plan:
        return Plan(service.address, INFER, (infer(asked),), **how)  # type: ignore[arg-type]  # floats and whole numbers

    def unloaded() -> Answers:
        return call(plan(in_flight=IN_FLIGHT, seconds=seconds))[0] if seconds else Answers([])

    def beside() -> Answers:
        if not (seconds and rate):
            return Answers([])
        nothing = plan(NOBODY, calls=int(rate * seconds), rate=rate, timeout=timeout, channels=channels)
        return call(plan(in_flight=IN_FLIGHT, seconds=seconds), nothing)[0]

    before = unloaded()
    service.until_idle()
    counted, resident = service.counted(model), service.resident_bytes()
    service.forget_peak()
    each = plan(calls=calls // processes, rate=rate / processes, timeout=timeout, channels=channels)
    answers = joined(call(*[each] * processes))
    ((again,),) = (one.all for one in call(plan(calls=1)))
    service.until_idle()
    passed = service.counted(model) - counted - Counted(1, int(again.ok), int(again.ok), 0, 0, 0)
    memory = resident, service.peak_bytes(), service.resident_bytes()
    after, left = unloaded(), beside()
    pace = f"{rate:,.0f} a second" if rate else "at once"
    return Flood(pace, timeout, answers, passed, before, after, left, memory, again)


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers of all processes."""
    return Answers([each for part in parts for each in part.all])
