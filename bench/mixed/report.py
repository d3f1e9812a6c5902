"""Report: what a contest found, as a section of Markdown; medians over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from bench.mixed.contest import IN_FLIGHT, Contest, Kind, Measured
from bench.mixed.served import ARRIVAL, PRODUCT

HEAD = """# Texts of mixed lengths through the running service

`python -m bench.mixed --write`: MiniLM, texts of 8 to 128 tokens, one a request, so many in flight, on a machine of 2
cores that service, gRPC server and caller share. The rival is a bare ONNX Runtime session with the service's options
and threads, which has the texts tokenized and stacked before, and runs them in the grouping that costs least by its own
measurements (dynamic programming): once with all of them at its choice, once with as many at a time as the service has
in flight. All take turns, round by round; a share is of the rival's throughput in the same round, so compare within a
section only. `service` is the real process behind gRPC on a Unix socket, through
`NlpService.Embed`; `inside` is its pile, policy and executor without tokenizer and wire.

With one thread of computation it has one core, and everything else the other; with two, all share both, so that what
the caller and the gRPC server use is missing to the model.
"""
NAMES = {PRODUCT: "by cost", ARRIVAL: "in order of arrival"}

Number = Callable[[Measured], float]


def title(threads: int) -> str:
    """Of a section."""
    return f"## {threads} thread{'s' if threads > 1 else ''} of computation"


def section(found: Contest) -> str:
    """All that was measured with one number of threads."""
    return "\n".join([title(found.threads), "", *_throughput(found), "", *_where(found), "", *_cpu(found)])


def _throughput(found: Contest) -> Iterator[str]:
    best = median(found.best)
    yield (
        f"Best grouping, bare session ({found.layout}), {found.items} items in {len(found.best)} rounds: "
        f"{best:.1f} items/s ({found.predicted:.1f} by its table), {found.best_rows:.2f} rows a batch, "
        f"{found.best_padding:.1%} padding. Of that: {_of_few(found)}one at a time {median(found.alone):.3f}."
    )
    yield ""
    yield (
        "| where | policy | in flight | items/s | of the best of all | rounds | of the best of as many as in flight "
        "| rounds | p50, ms | p99, ms | rows a batch | padding |"
    )
    yield "|---" * 12 + "|"
    for kind, measured in sorted(found.kinds.items(), key=lambda entry: _order(entry[0])):
        cells = [kind.where, NAMES[kind.policy], str(kind.in_flight), f"{_of(measured, lambda m: m.run.rate):.1f}"]
        for shares in ([each.share for each in measured], [each.share_of_few for each in measured]):
            cells += [f"**{median(shares):.3f}**", f"{min(shares):.3f}–{max(shares):.3f}"]
        cells += [f"{1000 * _of(measured, _percentile(share)):.0f}" for share in (50, 99)]
        told = kind.where == "service"
        cells += (
            [f"{_of(measured, lambda m: m.rows):.1f}", f"{_of(measured, lambda m: m.padding):.1%}"]
            if told
            else ["", ""]
        )
        yield f"| {' | '.join(cells)} |"
    for in_flight in IN_FLIGHT:
        product, arrival = (found.kinds[Kind("service", policy, in_flight)] for policy in (PRODUCT, ARRIVAL))
        times = median(one.share / other.share for one, other in zip(product, arrival, strict=True))
        yield ""
        yield f"At {in_flight} in flight the service by cost has {times:.2f} times the throughput of arrival order."


def _of_few(found: Contest) -> str:
    return "".join(
        f"{count} at a time, each time in their best grouping, {median(of):.3f}; " for count, of in found.few.items()
    )


def _where(found: Contest) -> Iterator[str]:
    """The service's share as a product: grouping × computing × keeping the executor busy."""
    yield (
        "Where the service's share by cost comes from, as factors: the rival's best grouping against the service's "
        "own batches run by the rival (what the policy loses); these against the same batches in the service, answers "
        "included (what stacking, splitting, answering and its neighbours' threads lose); and the part of the time in "
        "which the executor had a batch (what choosing, waking and waiting for texts lose)."
    )
    yield ""
    yield "| in flight | grouping | computing | busy | all | compute by the metrics |"
    yield "|---" * 6 + "|"
    for in_flight in IN_FLIGHT:
        rounds = zip(found.best, found.kinds[Kind("service", PRODUCT, in_flight)], strict=True)
        factors = zip(*(_factors(found, found.items / rate, measured) for rate, measured in rounds), strict=True)
        yield f"| {in_flight} | {' | '.join(f'{median(factor):.3f}' for factor in factors)} |"


def _factors(found: Contest, best: float, measured: Measured) -> tuple[float, ...]:
    """The columns of a row, for a round whose best grouping took so many seconds."""
    computed = measured.compute_seconds / found.executors
    answered = measured.answered_seconds / found.executors
    return (
        best / measured.replayed_seconds,
        measured.replayed_seconds / answered,
        answered / measured.run.seconds,
        measured.share,
        computed / measured.run.seconds,
    )


def _cpu(found: Contest) -> Iterator[str]:
    measured = {in_flight: found.kinds[Kind("service", PRODUCT, in_flight)] for in_flight in IN_FLIGHT}
    rooms = sorted({room for all_of in measured.values() for each in all_of for room in each.cpu} - {"waiting"})
    yield "CPU a text, in ms: the service's threads, its executor's time without a CPU that it wanted, and the caller."
    yield ""
    yield f"| in flight | {' | '.join(rooms)} | executor, waiting for a CPU | caller |"
    yield "|---" * (3 + len(rooms)) + "|"
    for in_flight, all_of in measured.items():
        cells = [_of(all_of, _per_text(found, room)) for room in (*rooms, "waiting")]
        cells.append(_of(all_of, lambda m: 1000 * m.run.cpu_seconds / found.items))
        yield f"| {in_flight} | {' | '.join(f'{cell:.2f}' for cell in cells)} |"


def _order(kind: Kind) -> tuple[bool, int, bool]:
    return kind.where != "service", kind.in_flight, kind.policy != PRODUCT


def _of(measured: Sequence[Measured], number: Number) -> float:
    return median(map(number, measured))


def _percentile(share: float) -> Number:
    return lambda measured: measured.run.percentile(share)


def _per_text(found: Contest, room: str) -> Number:
    return lambda measured: 1000 * measured.cpu[room] / found.items
