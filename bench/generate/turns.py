"""Turns: a conversation that goes on, with what is kept of it and without."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Protocol

from bench.generate.jobs import Drawn, Job
from bench.generate.plan import Plan
from bench.generate.processes import Contestant
from bench.generate.texts import Wave


class CanForget(Contestant, Protocol):
    """The bare engine."""

    def forget(self) -> None:
        """Nothing is kept of ended texts."""


class Forgetful:
    """The bare engine, which forgets before each text what it has kept of others."""

    name = "bare engine, forgetting between turns"

    def __init__(self, engine: CanForget) -> None:
        self._engine = engine

    def write(self, jobs: Sequence[Job], streams: int) -> Wave:
        """As the engine."""
        self._engine.forget()
        return self._engine.write(jobs, streams)


def turns(engine: CanForget, service: Contestant, drawn: Drawn, plan: Plan) -> str:
    """Seconds to the first token of each turn's answer: what is said is given, one token is asked for."""
    ways: list[Contestant] = [Forgetful(engine), engine, service]
    took: dict[str, list[list[float]]] = {way.name: [] for way in ways}
    lengths: list[int] = []
    for _ in range(plan.rounds):
        jobs = [drawn.job(said, 1) for said in drawn.conversation(plan.turns, plan.turn_words)]
        lengths = [len(job.ids) for job in jobs]
        for way in ways:
            engine.forget()  # what the way before it has left
            took[way.name].append([way.write([job], 1).texts[0].first_seconds for job in jobs])
    head = ["turn", *(str(turn + 1) for turn in range(plan.turns)), "all"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines.append(f"| tokens of the prompt, last round | {' | '.join(map(str, lengths))} | {sum(lengths)} |")
    for name, rounds in took.items():
        middle = [median(each) for each in zip(*rounds, strict=True)]
        lines.append(f"| {name}, s | {' | '.join(f'{each:.3f}' for each in middle)} | {sum(middle):.2f} |")
    return "\n".join(lines)
