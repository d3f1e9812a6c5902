"""Report: the outcomes as markdown."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence

import onnxruntime

from bench.flood.burst import Burst
from bench.flood.flood import Flood
from ortmesh.cpus import cpus

MB = 1e6
FLOODS = """\
A model of one row in some {row:.0f} ms, which no batch makes quicker. `goodput` is answers within their deadline a
second, from the first call to the last one's deadline; `unloaded` the model's rate just before and after with four
calls in flight; `beside calls for nothing` the same while as many calls a second as the flood's name a model that is
not there, which is what callers and front, on the same cores, leave to the model. `late` is rows that were computed
for a caller whose deadline passed meanwhile: `computed` less the good answers. `dropped` are items that cost nothing,
since nobody waited for them any more, or would not by the end of their run. `memory` is the service's, in MB: before,
highest, after. `then` is one usual call when the flood has ended."""
BURSTS = """\
A caller at a light rate, alone and beside one that sends hundreds of calls at once, again and again; times in ms. Its
calls come 25 a second, as long after each other, or, `at random`, 50 a second that know nothing of each other: then
they wait for each other too, as a service's callers do. The two are told apart by `x-ortmesh-caller`, which a service
believes where only the gateway or this machine can connect."""


def markdown(floods: Mapping[str, Sequence[Flood]], bursts: Mapping[str, Sequence[Burst]], row: float) -> str:
    """All of it."""
    return "\n".join(_lines(floods, bursts, row)) + "\n"


def _lines(floods: Mapping[str, Sequence[Flood]], bursts: Mapping[str, Sequence[Burst]], row: float) -> Iterator[str]:
    yield "# A flood, and one caller's bursts"
    yield ""
    yield (
        f"`python -m bench.flood --write`: {cpus()} cores, Python {platform.python_version()}, "
        f"onnxruntime {onnxruntime.__version__}. The service is a process of its own with one thread for the model; "
        "callers are other processes (grpc.aio, niced by 5) on the same cores. Compare within a line only."
    )
    if any(floods.values()):
        yield from ("", "## Flood", "", FLOODS.format(row=1000 * row), "")
        columns = "adapter, calls|goodput|unloaded|ratio|beside calls for nothing|ratio to it|OK|refused (retry in s)"
        columns += "|expired|computed|late|dropped|memory|then"
        yield from _head(columns)
        for adapter, some in floods.items():
            for each in some:
                yield _flood(adapter, each)
    if any(bursts.values()):
        yield from ("", "## Burst", "", BURSTS, "")
        yield from _head(
            "adapter, model|p50 alone|p50 beside|p99 alone|p99 beside|ratio of p99|calls|the other's calls"
        )
        for adapter, found in bursts.items():
            for one in found:
                yield _burst(adapter, one)


def _head(columns: str) -> Iterator[str]:
    names = columns.split("|")
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)


def _flood(adapter: str, each: Flood) -> str:
    codes, counted = each.answers.codes, each.counted
    low, high = each.retry_seconds
    retry = f" ({low:.2g} to {high:.2g})" if each.refused else ""
    dropped = counted.expired + counted.cancelled
    strange = "".join(f", {count:,} {code}" for code, count in each.strange.items())
    cells = (
        f"{adapter}, {len(each.answers.all):,} {each.pace}, {1000 * each.timeout:.0f} ms",
        f"{each.goodput:.1f}",
        f"{each.unloaded:.1f}",
        f"{each.goodput / each.unloaded:.2f}",
        *(("", "") if math.isnan(each.left) else (f"{each.left:.1f}", f"{each.goodput / each.left:.2f}")),
        f"{codes['OK']:,}",
        f"{len(each.refused):,}{retry}",
        f"{codes['DEADLINE_EXCEEDED']:,}{strange}",
        f"{counted.rows:,}",
        f"{each.late:,}",
        f"{dropped:,}",
        ", ".join(f"{bytes_ / MB:.0f}" for bytes_ in each.resident),
        f"{each.again.code} in {1000 * each.again.seconds:.0f} ms",
    )
    return "| " + " | ".join(cells) + " |"


def _burst(adapter: str, each: Burst) -> str:
    times = [1000 * side.percentile(percent) for percent in (50, 99) for side in (each.alone, each.beside)]
    cells = (
        f"{adapter}, {each.name}",
        *(f"{time:.1f}" for time in times),
        f"{each.ratio(99):.2f}",
        f"{len(each.alone.ok)} and {len(each.beside.ok)}",
        ", ".join(f"{count:,} {code}" for code, count in each.other.codes.most_common()),
    )
    return "| " + " | ".join(cells) + " |"
