"""Memory: what the service holds at rest, with all its slots full, and afterwards."""

from __future__ import annotations

import threading
import time

from bench.generate.jobs import Drawn
from bench.generate.plan import Plan
from bench.generate.service import Service

LOOK_SECONDS = 0.1
MEGA = 1e6
MARGIN = 4
"""Tokens by which a drawn prompt may be longer than is asked for."""


def memory(service: Service, drawn: Drawn, plan: Plan) -> str:
    """Resident megabytes. The service's peak is looked at every tenth of a second."""
    rest, peak, done = service.resident_bytes(), 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(LOOK_SECONDS):
            peak = max(peak, service.resident_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        text = min(plan.tokens, plan.full_tokens // 4)
        service.write(
            [drawn.long(plan.full_tokens - text - MARGIN, text) for _ in range(plan.full_streams)], plan.full_streams
        )
    finally:
        done.set()
        looking.join()
    after = service.resident_bytes()
    time.sleep(plan.rest_seconds)
    found = {
        "at rest, before": rest,
        f"most, with {plan.full_streams} texts of {plan.full_tokens} tokens": max(peak, after),
        "when they have ended": after,
        f"{plan.rest_seconds:.0f} s later": service.resident_bytes(),
    }
    lines = ["| the service | resident, MB |", "|---|---|"]
    return "\n".join([*lines, *(f"| {when} | {held / MEGA:.0f} |" for when, held in found.items())])
