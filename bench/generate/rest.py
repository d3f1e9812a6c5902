"""Rest: where the time goes that is not the model's steps."""

from __future__ import annotations

import time
from statistics import mean

from bench.generate.jobs import Drawn, Job
from bench.generate.plan import Plan
from bench.generate.processes import BareEngine
from bench.generate.service import Service
from bench.generate.texts import Wave
from bench.generate.times import BOUND, CHOOSING, COPYING, PROMPTS, STEPS, Sums, since


def rest(engine: BareEngine, service: Service, drawn: Drawn, plan: Plan) -> str:
    """Shares of the wall time, of the bare engine and of the service, and the service's CPU."""
    columns = ["streams", "contestant", "tokens/s", "steps", "bare step, ms", "bare steps", "steps in the engine"]
    columns += ["prompts", "binding", "choosing and handing on", "copies", "the rest"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    rooms = []
    for count, texts in zip(plan.streams, plan.texts, strict=True):
        jobs = drawn.stories(texts, plan.tokens)
        length = round(mean(len(job.ids) for job in jobs)) + plan.tokens // 2
        step = engine.step_seconds(count, length)
        before = engine.sums()
        wave = engine.write(jobs, count)
        lines.append(_row(count, engine.name, wave, since(engine.sums(), before), step))
        wave, found, cpu = _served(service, jobs, count)
        lines.append(_row(count, service.name, wave, found, step))
        rooms.append(f"{count} streams: {cpu}")
    told = (
        f"CPU of the service and of its caller (ms a token), which share the cores with the model: {'; '.join(rooms)}."
    )
    return "\n".join([*lines, "", told])


def _served(service: Service, jobs: list[Job], count: int) -> tuple[Wave, Sums, str]:
    before, cpu, own = service.sums(), service.cpu_seconds(), time.process_time()
    wave = service.write(jobs, count)
    own, cpu = time.process_time() - own, service.cpu_seconds() - cpu
    tokens = sum(text.count for text in wave.texts)
    rooms = [*cpu.most_common(), ("caller", own)]
    told = ", ".join(f"{room} {1000 * seconds / tokens:.2f}" for room, seconds in rooms)
    return wave, since(service.sums(), before), told


def _row(count: int, name: str, wave: Wave, found: Sums, step: float) -> str:
    steps = found[STEPS][0]
    shares = [found[part][1] / wave.seconds for part in (STEPS, PROMPTS, BOUND, CHOOSING, COPYING)]
    cells = [
        str(count),
        name,
        f"{wave.rate:.1f}",
        str(steps),
        f"{1000 * step:.1f}",
        f"{steps * step / wave.seconds:.3f}",
    ]
    cells += [*(f"{share:.3f}" for share in shares), f"{1 - sum(shares):.3f}"]
    return f"| {' | '.join(cells)} |"
