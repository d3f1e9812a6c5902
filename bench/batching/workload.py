"""Workloads: when items of which sizes come to a device under a load, drawn from seeds or replayed from a trace."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from bench.batching import traces
from bench.batching.devices import Device
from bench.batching.traces import Arrival
from ortmesh.serving.batcher import Costs

DRAWN = ("poisson", "bursty")
BURST = 16
"""Mean items of a burst."""
SEED = 3


def workload(device: Device, kind: str, load: float, count: int) -> list[Arrival]:
    """So many items under `load` times the device's best throughput; a trace has as many as it has."""
    return drawn(device, kind, load, count) if kind in DRAWN else replayed(device, kind, load)


def drawn(device: Device, kind: str, load: float, count: int) -> list[Arrival]:
    """Independent sizes; independent times (`poisson`), or some sixteen items at once (`bursty`)."""
    draw, sizes = random.Random(SEED), random.Random(SEED + 1)
    rate, now, made = load * capacity(device), 0.0, list[Arrival]()
    while len(made) < count:
        now += draw.expovariate(rate if kind == "poisson" else rate / BURST)
        together = 1 if kind == "poisson" else 1 + int(math.log(1 - draw.random()) / math.log(1 - 1 / BURST))
        made += [Arrival(now, device.size(sizes), "", device.deadline) for _ in range(together)]
    return made[:count]


def replayed(device: Device, name: str, load: float) -> list[Arrival]:
    """A trace, sped up or slowed down to a load. The least time that one of its callers gives becomes the device's
    deadline, the others follow in proportion; what the device can't take is cut to what it can."""
    trace = traces.read(name)
    sizes = [min(device.sized(each.size), device.largest) for each in trace]
    some = 4 * device.truth.max_rows
    seconds = sum(least(device, sizes[first : first + some]) for first in range(0, len(sizes), some))
    pace = seconds / load / trace[-1].seconds
    given = {each.caller: 0.0 for each in trace}
    for each in trace:
        given[each.caller] = max(given[each.caller], each.deadline)
    patience = device.deadline / min(given.values())
    return [
        Arrival(each.seconds * pace, size, each.caller, each.deadline * patience)
        for each, size in zip(trace, sizes, strict=True)
    ]


def capacity(device: Device) -> float:
    """Items a second when a large backlog is grouped as well as contiguous groups can be."""
    draw, count = random.Random(1), 4 * device.truth.max_rows
    return 6 * count / sum(least(device, [device.size(draw) for _ in range(count)]) for _ in range(6))


def least(device: Device, sizes: Sequence[int]) -> float:
    """The least seconds in which a backlog of these sizes can run."""
    if not device.padded:
        return sum(best_grouping([size] * sizes.count(size), device.truth) for size in set(sizes))
    return best_grouping(sorted(sizes), device.truth)


def best_grouping(sizes: Sequence[int], costs: Costs) -> float:
    """The least seconds in which items of these ascending sizes can run, by dynamic programming over their ends."""
    table = costs.table(np.array(sizes, float))
    best = [0.0]
    for end in range(1, len(sizes) + 1):
        most = min(end, costs.max_rows)
        best.append(min(best[end - rows] + table[end - 1, rows - 1] for rows in range(1, most + 1)))
    return best[-1]
