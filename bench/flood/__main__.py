"""`python -m bench.flood`: the flood and the bursts on a real service, by both adapters; some four minutes."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.flood.bodies import embed, infer
from bench.flood.burst import Burst, burst
from bench.flood.flood import PROCESSES, Flood, flood
from bench.flood.graph import rounds_for, steady
from bench.flood.plan import EMBED, INFER, Plan
from bench.flood.report import markdown
from bench.flood.service import Service, serving
from ortmesh.config import StoreSettings
from ortmesh.serving import kept
from ortmesh.serving.add import add
from ortmesh.serving.store import Store

RESULT = Path(__file__).parents[1] / "results" / "flood.md"
CALLS = 10_000
PACES = ((1000.0, 1, 0.1), (0.0, PROCESSES, 10.0))
"""Calls a second (0: all at once), processes of callers, every call's deadline in seconds. With grpc.aio a process
needs 0.3 ms of a core a call, so that the last of those at once are sent when seconds have passed: theirs is long."""
ROW_SECONDS, QUICK_ROW_SECONDS = 0.02, 0.004
UNLOADED_SECONDS = 5.0
BURST_ROUNDS = 2
BURST_CALLS, BURST_SIZE, BURSTS_A_SECOND = 900, 300, 0.5
STEADY_CALLS, STEADY_RATE = 125, 25.0
USUAL_CALLS, USUAL_RATE = 300, 50.0
"""Of a caller whose calls come at random: two fifths of what MiniLM can serve, so that they wait for each other too."""
LENGTHS = (4, 60, 8, 30, 16, 90, 4, 12)
"""Words of the texts: some 5 to 100 tokens."""
MINILM = "all-minilm-l6-v2"


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__)
    parser.add_argument("--adapter", nargs="+", choices=("native", "grpcio"), default=["native", "grpcio"])
    parser.add_argument("--only", choices=("flood", "burst"))
    parser.add_argument("--write", action="store_true", help=f"write bench/results/{RESULT.name}")
    chosen = parser.parse_args()
    floods: dict[str, list[Flood]] = {adapter: [] for adapter in chosen.adapter}
    bursts: dict[str, list[Burst]] = {adapter: [] for adapter in chosen.adapter}
    with tempfile.TemporaryDirectory(prefix="om-") as folder:
        models = _models(Path(folder))
        for adapter in chosen.adapter:
            with serving(models, adapter) as service:
                if chosen.only != "burst":
                    floods[adapter] = _floods(service)
                if chosen.only != "flood":
                    bursts[adapter] = _bursts(service)
    text = markdown(floods, bursts, ROW_SECONDS)
    print(text, end="")
    if chosen.write:
        RESULT.write_text(text, encoding="utf-8")


def _models(folder: Path) -> Path:
    """A store with two steady models and MiniLM."""
    store = Store(folder / "models")
    for name, seconds in (("steady", ROW_SECONDS), ("quick", QUICK_ROW_SECONDS)):
        add(steady(folder / name, rounds_for(seconds, folder / "probe")), name, "nlp", store)
    measured_anew = shutil.ignore_patterns(kept.FILE)
    shutil.copytree(StoreSettings().models / MINILM, store.root / MINILM, copy_function=os.link, ignore=measured_anew)
    return store.root


def _floods(service: Service) -> list[Flood]:
    return [
        flood(
            service,
            model="steady",
            calls=CALLS,
            rate=rate,
            timeout=timeout,
            seconds=UNLOADED_SECONDS,
            processes=processes,
        )
        for rate, processes, timeout in PACES
    ]


def _bursts(service: Service) -> list[Burst]:
    quick, texts = (infer("quick"),), embed(LENGTHS)
    made = []
    for name, path, requests, usual in (
        ("quick", INFER, quick, False),
        ("MiniLM, mixed lengths", EMBED, texts, False),
        ("MiniLM, mixed lengths, at random", EMBED, texts, True),
    ):
        asked = Plan(service.address, path, requests)
        calls, rate = (USUAL_CALLS, USUAL_RATE) if usual else (STEADY_CALLS, STEADY_RATE)
        mine = replace(asked, calls=calls, rate=rate, at_random=usual, caller="steady", channels=1)
        other = replace(asked, calls=BURST_CALLS, rate=BURSTS_A_SECOND, burst=BURST_SIZE, caller="burst", channels=4)
        made.append(burst(service, name, mine, other, rounds=BURST_ROUNDS))
    return made


if __name__ == "__main__":
    main()
