"""What batches of a model cost, and what follows from that, for a person. Stage: command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ortmesh.cli.answers import table
from ortmesh.models.v1.models_pb2 import Choice, Model

IN_ORDER = "in order of arrival"
MEANINGS = {
    "by cost": "the batch worth most for its time; longer waits are worth more",
    IN_ORDER: "what batches cost is not known yet; it is measured while the model is idle, on samples that it takes",
}
"""Of `Batching.policy`, in words."""
PROGRAM = "what a batch of a model of several steps costs depends on what is in it"
AS_MEASURED = 0.05
"""A speed that differs by less is no news."""
GAP = 2
"""Characters between two columns."""
MARK = "*"
"""Behind the best batch of each size, where there are no colours."""
ABOUT = "~"
"""Before what was not measured, but follows from other batches."""
BEST, RATE = "BEST BATCH", "ITEMS/S"


def print_batching(model: Model, console: Console, measured_on: str = "") -> None:
    """The table of costs, as wide as the console lets it be, and what it means; why there is none.

    `measured_on` says where, of costs that were kept and are no running service's.
    """
    batching = model.batching
    if not batching.policy and not batching.costs:
        return
    console.print()
    if measured_on:
        console.print(Text(f"measured on  {measured_on}"), soft_wrap=True)
    for line in sayings(model):
        console.print(Text(line), soft_wrap=True)
    if batching.costs:
        console.print()
        for part in cost_table(model, console.width):
            console.print(part)


def sayings(model: Model) -> Iterable[str]:
    """How batches are formed, on what they run, and how today's runs compare with what was measured."""
    batching = model.batching
    if batching.policy:
        program = batching.policy == IN_ORDER and (_card(model).get("runtime") or {}).get("program")
        meaning = PROGRAM if program else MEANINGS.get(batching.policy, "")
        yield f"batches  {batching.policy}{': ' if meaning else ''}{meaning}"
    if batching.executors:
        yield f"layout   {layout(batching.executors, batching.threads)}"
    if batching.policy and batching.costs and batching.speed != 1:  # else nothing has run yet
        yield f"speed    {speed(batching.speed)}"


def layout(executors: int, threads: int) -> str:
    """How many batches are computed side by side, and by how many threads each."""
    each = f"{threads} thread{'' if threads == 1 else 's'}" if threads else "a device"
    if executors == 1:
        return f"1 executor on {each}"
    if threads > 1:
        return f"{executors} executors side by side, up to {threads} threads a batch"
    return f"{executors} executors side by side on {each}{' each' if threads else ''}"


def speed(times: float) -> str:
    """How long runs take now."""
    if abs(times - 1) < AS_MEASURED:
        return "runs take what was measured at first"
    return f"runs take {times:.2g} × what was measured at first; the table has that in it"


def cost_table(model: Model, width: int) -> Iterable[Table | Text]:
    """Milliseconds of a batch by the size and the number of its rows, and what of it could not be shown."""
    batching = model.batching
    cells = {
        (cost.size, cost.rows): ("" if cost.measured else ABOUT) + milliseconds(cost.seconds) for cost in batching.costs
    }
    choices = {choice.size: choice for choice in batching.choices}
    head, sizes = unit_of(model), sorted({size for size, _ in cells})
    every = sorted({rows for _, rows in cells})
    rates = [rate(choice.items_per_second) for choice in choices.values()]
    edges = max(len(head), *(len(_size(size)) for size in sizes)) + len(BEST) + max(map(len, (RATE, *rates))) + 2 * GAP
    one = max(map(len, (*cells.values(), *map(str, every)))) + len(MARK) + GAP
    shown = columns(every, [choice.rows for choice in choices.values()], max(1, (width - edges) // one))
    made = table(head, *(f"{rows} " for rows in shown), BEST, RATE)
    for column in made.columns:
        column.justify, column.no_wrap = "right", True
    for size in sizes:
        choice = choices.get(size, Choice())
        costs = (_cell(cells.get((size, rows), ""), rows == choice.rows) for rows in shown)
        made.add_row(_size(size), *costs, f"{choice.rows or ''}", rate(choice.items_per_second))
    yield Text(
        f"milliseconds that a batch of so many rows takes; {MARK} where a row costs least; {ABOUT} follows from others",
        style="dim",
    )
    if head == "SIZE" and sizes != [0]:
        yield Text("size: elements of a row in relation to the sample that was measured, which has 16", style="dim")
    yield made
    if hidden := [str(rows) for rows in every if rows not in shown]:
        yield Text(f"known too, in a wider terminal or with --json: {', '.join(hidden)} rows", style="dim")


def columns(rows: Sequence[int], best: Iterable[int], room: int) -> list[int]:
    """At most so many of these ascending numbers of rows: one row, those that are best for some size, then the others,
    those first that are twice one another."""
    doubled = [each for each in rows if each & (each - 1) == 0]
    wanted = dict.fromkeys((rows[0], *sorted(set(best) & set(rows)), *doubled, *rows))
    return sorted(list(wanted)[:room])


def unit_of(model: Model) -> str:
    """What sizes count: tokens or another length where items are padded, else what the service calls a size."""
    inputs = _card(model).get("inputs") or {}
    padded = any(each.get("pad_axis") is not None for each in inputs.values())
    return ("TOKENS" if model.family == "nlp" else "LENGTH") if padded else "SIZE"


def _card(model: Model) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(model.card_json or "{}")
    return card


def milliseconds(seconds: float) -> str:
    """Three digits that count, e.g. `4.12` or `1,230`."""
    return _three_digits(seconds * 1000)


def rate(items_per_second: float) -> str:
    """Three digits that count, nothing for an unknown one."""
    return _three_digits(items_per_second) if items_per_second else ""


def _three_digits(value: float) -> str:
    for digits, above in ((0, 99.95), (1, 9.995), (2, 0.9995)):
        if value >= above:
            return f"{value:,.{digits}f}"
    return f"{value:.3f}"


def _size(size: int) -> str:
    return str(size) if size else "any"


def _cell(text: str, best: bool) -> Text:
    return Text(text + MARK, style="bold green") if best else Text(f"{text} ")
