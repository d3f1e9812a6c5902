"""The burst: one caller's calls at a light, steady rate, alone and while another caller sends hundreds at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.flood.callers import calling
from bench.flood.flood import joined
from bench.flood.plan import Answers, Plan
from bench.flood.service import Service


@dataclass(frozen=True, slots=True)
class Burst:
    """The steady caller's answers, and the other one's."""

    name: str
    alone: Answers
    beside: Answers
    """While the other one bursts."""
    other: Answers

    def ratio(self, percent: float) -> float:
        """How many times as long it took beside the other one."""
        return self.beside.percentile(percent) / self.alone.percentile(percent)


def burst(service: Service, name: str, steady: Plan, other: Plan, *, rounds: int) -> Burst:
    """The steady calls without and with the other's, in turns; both name a caller."""
    assert steady.address == other.address == service.address
    alone, beside, others = [], [], []
    for _ in range(rounds):
        alone.append(_follow(steady)[0])
        service.until_idle()
        mine, theirs = _follow(steady, other)
        beside.append(mine)
        others.append(theirs)
        service.until_idle()
    return Burst(name, joined(alone), joined(beside), joined(others))


def _follow(steady: Plan, *others: Plan) -> list[Answers]:
    """Only the steady calls that came while the other one called count."""
    with calling(replace(steady, nice=0), *others) as callers:
        for each in reversed(callers):
            each.begin()
        heard = [each.answers() for each in callers]
    if others:
        ends = max(each.at + each.seconds for each in heard[1].all)
        heard[0] = Answers([each for each in heard[0].all if each.at <= ends])
    return heard
