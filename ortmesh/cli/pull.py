"""`ortmesh pull`: fetches models of the catalogue into the store. Stage: command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ortmesh.cli.answers import print_table, table
from ortmesh.cli.console import err, fail, out
from ortmesh.cli.failures import errors_in_words, settings
from ortmesh.cli.known import say_what_is_not_served
from ortmesh.cli.plan import FAMILIES
from ortmesh.cli.steps import showing_steps
from ortmesh.config import StoreSettings

if TYPE_CHECKING:
    from ortmesh.serving.cards import Card
    from ortmesh.serving.store import Store

LEGEND = "fetched: in the store; default: `ortmesh pull` fetches it; optional: only by its name, or with --optional"


def pull(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models of the catalogue. By default all that are not optional.")
    ] = None,
    family: Annotated[
        list[str] | None, typer.Option(metavar="FAMILY", help="Only vision's, speech's or nlp's; may be repeated.")
    ] = None,
    optional: Annotated[bool, typer.Option("--optional", help="The optional ones too.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Make them anew even if they are in the store.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List the catalogue and fetch nothing.")] = False,
    models: Annotated[
        Path | None, typer.Option(help="The store's folder. By default ORTMESH_MODELS, else the user's cache.")
    ] = None,
) -> None:
    """Fetch models into the store: checked, resumable, one at a time between processes.

    \b
    [bold]Examples[/bold]
      ortmesh pull                      the default set
      ortmesh pull all-minilm-l6-v2     one model, and those that it works with
      ortmesh pull --family nlp         what one family's service needs
      ortmesh pull --list               what there is
    """
    from ortmesh import catalogue
    from ortmesh.serving.faults import IndexUnreachable
    from ortmesh.serving.store import Store

    store = Store(models or settings(StoreSettings).models)
    with errors_in_words():
        cards = [catalogue.card(name) for name in names] if names else catalogue.cards()
    if family:
        cards = _of(family, cards, named=bool(names))
    if show:
        print_table(_listing(cards, store))
        out.print(LEGEND, style="dim", soft_wrap=True)
        return
    chosen = [card for card in cards if names or optional or not card.optional]
    wanted = catalogue.with_companions(chosen)
    failed: list[str] = []
    for number, card in enumerate(wanted):
        try:
            if not _pull_one(card, store, again and card in chosen):
                failed.append(card.key)
        except IndexUnreachable as error:  # the others would only wait for it as long
            err.print(Text(f"✗ {error}", style="bold red"), soft_wrap=True)
            failed += [each.key for each in wanted[number:] if not store.has(each.name, each.version)]
            break
    next_step = "" if failed else "; next: `ortmesh up`"
    out.print(f"{len(wanted) - len(failed)} of {len(wanted)} models are in {store.root}{next_step}", soft_wrap=True)
    if failed:
        err.print(Text(f"not fetched: {', '.join(failed)}; `ortmesh pull` goes on where it stopped", style="red"))
        raise typer.Exit(1)
    if models is None:
        say_what_is_not_served(sorted({card.family for card in wanted}))


def _of(families: Sequence[str], cards: list[Card], *, named: bool) -> list[Card]:
    """The families' models. Ends with exit code 1 for a name that is no family, or a named model of another one."""
    for family in families:
        if family not in FAMILIES:
            fail(f"--family {family}: the families are {', '.join(FAMILIES)}")
    others = [card for card in cards if card.family not in families]
    if named and others:
        fail(f"{others[0].name} is of the family {others[0].family}")
    return [card for card in cards if card.family in families]


def _pull_one(card: Card, store: Store, again: bool) -> bool:
    """True when the model is in the store afterwards; the reason is printed when not: the others are fetched still."""
    from ortmesh.serving import fetch
    from ortmesh.serving.faults import IndexUnreachable, StoreError

    there = store.has(card.name, card.version) and not again
    try:
        with showing_steps(card.key) as progress:
            fetch.pull(card, store, progress, again=again)
    except IndexUnreachable:
        raise
    except (StoreError, OSError) as error:
        err.print(Text.assemble(("✗ ", "bold red"), (card.key, "bold"), f": {error}"), soft_wrap=True)
        return False
    out.print(Text.assemble(("✓ ", "bold green"), card.key, (" (was there)" if there else "", "dim")))
    return True


def _listing(cards: list[Card], store: Store) -> Table:
    listing = table("MODEL", "FAMILY", "TASKS", "STATE", "LICENCE", wraps=("TASKS",))
    for card in cards:
        state = "fetched" if store.has(card.name, card.version) else "optional" if card.optional else "default"
        listing.add_row(card.key, card.family, ", ".join(card.tasks), state, card.license.weights)
    return listing
