"""`python -m bench.batching`: the policies on the simulated devices, as a table and as a picture."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.batching import picture
from bench.batching.devices import Device, devices
from bench.batching.simulate import BY_COST, BY_HAND, CONTESTANTS, LIMITS, Outcome, simulate
from bench.batching.workload import DRAWN, workload

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "bench" / "results" / "batching.md"
PICTURE = ROOT / "docs" / "batching.svg"
IN_TABLE = (0.7, 0.95, 1.3)

HEAD = """# Policies of batching, simulated

`python -m bench.batching --items {items} --write`: one executor, the product's own pile with its turns of callers and
its deadlines, for all policies; deterministic. Load is the share of the throughput that the best grouping of a backlog
would reach. Policies may fill a batch to the device's largest, but for those in the table at the end. By cost begins
with what a warm-up would know and learns from each run, as the product does; it alone knows what will be late, and
drops that before it costs.

Arrivals are drawn (`poisson`, `bursty`: some sixteen at once), or are [recorded traces](../batching/traces/README.md)
of a running service, sped up or slowed down to the load; the least time that one of a trace's callers gives becomes the
device's deadline, the others follow in proportion.

A cell: share answered within the deadline · p99 of those that ran, ms · share of the computed cells that was padding.
Where deadlines differ, the share behind the slash and the p99 are of the items with the shortest, for which somebody
waits."""

HAND_HEAD = """
## By hand: the share answered within the shortest deadline when somebody sets the largest batch

Load {load}. The best setting of one device is among the worst of the other; by cost there is nothing to set.
"""

Case = tuple[str, str, str, float]
"""Device, arrivals, policy and load."""
Results = dict[Case, Outcome]


def main() -> None:
    """Runs every combination; some minutes with 4,000 items."""
    parser = argparse.ArgumentParser(prog="python -m bench.batching", description=__doc__)
    parser.add_argument(
        "--items", type=int, default=4000, help="that are drawn for a run; traces have their own number"
    )
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} and {PICTURE.name}")
    chosen = parser.parse_args()
    results = run(chosen.items)
    text = "\n".join(table(results, chosen.items))
    print(text)
    if chosen.write:
        TABLE.write_text(text + "\n", encoding="utf-8")
        picture.draw({case: each.goodput for case, each in results.items()}, PICTURE)


def run(items: int) -> Results:
    """The outcome of every case, computed on all cores."""
    cases = [*_by_policy(), *_by_hand()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cases, pool.map(outcome, cases, [items] * len(cases)), strict=True))


def _by_policy() -> Iterable[Case]:
    for device in devices().values():
        for kind in (*DRAWN, *device.traces):
            for load in picture.LOADS if picture.shows(device.name, kind) else IN_TABLE:
                yield from ((device.name, kind, contestant.name, load) for contestant in CONTESTANTS)


def _by_hand() -> Iterable[Case]:
    for device in devices().values():
        for kind in (DRAWN[0], *device.traces):
            for limited in BY_HAND.values():
                yield from ((device.name, kind, contestant.name, picture.HAND_LOAD) for contestant in limited)


def outcome(case: Case, items: int) -> Outcome:
    """Of one case."""
    name, kind, policy, load = case
    device = devices()[name]
    every = (*CONTESTANTS, *(each for limited in BY_HAND.values() for each in limited))
    (contestant,) = (each for each in every if each.name == policy)
    return simulate(device, contestant, workload(device, kind, load, items))


def table(results: Results, items: int) -> Iterable[str]:
    """Markdown."""
    yield HEAD.format(items=items)
    for device in devices().values():
        yield ""
        yield f"## {device.name}: {device.about} (deadline {device.deadline * 1000:g} ms)"
        yield ""
        yield f"| arrivals, load | {' | '.join(each.name for each in CONTESTANTS)} |"
        yield "|---" * (1 + len(CONTESTANTS)) + "|"
        for kind in (*DRAWN, *device.traces):
            for load in IN_TABLE:
                yield f"| {kind}, {load} | {' | '.join(_cells(results, device, kind, load))} |"
    yield HAND_HEAD.format(load=picture.HAND_LOAD)
    yield f"| device, arrivals, order | {' | '.join(f'at most {most}' for most in LIMITS)} | {BY_COST.name} |"
    yield "|---" * (2 + len(LIMITS)) + "|"
    for device in devices().values():
        for kind in (DRAWN[0], *device.traces):
            for order, limited in BY_HAND.items():
                found = (results[device.name, kind, each.name, picture.HAND_LOAD] for each in (*limited, BY_COST))
                cells = " | ".join(f"{each.urgent_goodput:.2f}" for each in found)
                yield f"| {device.name}, {kind}, {order} | {cells} |"


def _cells(results: Results, device: Device, kind: str, load: float) -> Iterable[str]:
    for contestant in CONTESTANTS:
        found = results[device.name, kind, contestant.name, load]
        some = f"/{found.urgent_goodput:.2f}" if found.urgent < found.items else ""
        yield f"{found.goodput:.2f}{some} · {1000 * found.percentile(99):.0f} · {found.waste:.2f}"


if __name__ == "__main__":
    main()
