"""Served: the language service as it is, on the GPU, asked through gRPC: texts as they are generated, and vectors."""

from __future__ import annotations

import time
from statistics import median

from bench.generate.jobs import Drawn
from bench.generate.service import Service, running
from bench.generate.texts import Wave
from bench.gpu.models import MINILM, THREADS, Bench
from bench.gpu.texts import SMOLLM, STREAMS, TOKENS, tokenizer_of
from bench.mixed import service as mixed
from bench.mixed.caller import through_grpc
from bench.mixed.items import items
from bench.mixed.served import PRODUCT

IN_FLIGHT = (1, 16, 64, 256)
TEXTS = 12_000
"""That are embedded in one go."""


def generate(bench: Bench) -> list[str]:
    """Rates of texts, and whether they are what they are alone."""
    _, folder = bench.card(SMOLLM)
    drawn = Drawn(tokenizer_of(folder), seed=1)
    lines = ["| streams | tokens/s | first token, p50, ms | longest gap, ms |", "|---|---|---|---|"]
    began = time.monotonic()
    with running(folder, THREADS) as service:
        lines.insert(0, f"Ready after {time.monotonic() - began:.1f} s; the service's caller is a process beside it.")
        lines.insert(1, "")
        service.write(drawn.stories(64, 8), 32)
        for count in STREAMS:
            wave = service.write(drawn.stories(2 * count, TOKENS), count)
            lines.append(_row(count, wave))
        lines += ["", *_same(service, drawn)]
    return lines


def embed(bench: Bench) -> list[str]:
    """Texts of 8 to 128 tokens, one a call, from one process."""
    _, folder = bench.card(MINILM)
    some = items(TEXTS, tokenizer_of(folder), seed=1)
    lines = ["| in flight | texts/s | p50, ms | p99, ms | the service's CPU, of a core | the caller's |"]
    lines += ["|---|---|---|---|---|---|"]
    with mixed.copied(folder) as store, mixed.running(PRODUCT, store, MINILM, THREADS) as service:
        through_grpc(service.address, some[: TEXTS // 4], 64)
        for in_flight in IN_FLIGHT:
            asked = some[: min(TEXTS, 1000 * in_flight)]
            before = _cpu(service)
            run = through_grpc(service.address, asked, in_flight)
            shares = f"{(_cpu(service) - before) / run.seconds:.0%} | {run.cpu_seconds / run.seconds:.0%}"
            p50, p99 = 1e3 * run.percentile(50), 1e3 * run.percentile(99)
            lines.append(f"| {in_flight} | {run.rate:.0f} | {p50:.2f} | {p99:.2f} | {shares} |")
    return lines


def _row(count: int, wave: Wave) -> str:
    first = median(text.first_seconds for text in wave.streams)
    gap = max(text.gap_seconds for text in wave.streams)
    return f"| {count} | {wave.rate:.0f} | {1e3 * first:.1f} | {1e3 * gap:.1f} |"


def _same(service: Service, drawn: Drawn) -> list[str]:
    jobs = drawn.stories(32, 64)
    alone = [service.write([job], 1).texts[0].text for job in jobs]
    lines = []
    for count in (2, 8, 32):
        among = [text.text for text in service.write(jobs, count).texts]
        equal = sum(one == other for one, other in zip(alone, among, strict=True))
        lines.append(f"{equal} of {len(jobs)} texts are what they are alone, {count} at once.")
    return lines


def _cpu(service: mixed.Service) -> float:
    return sum(seconds for room, seconds in service.cpu_seconds().items() if room != "waiting")
