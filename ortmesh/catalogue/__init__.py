"""The catalogue: what is served by default, as cards and the recipes that make their files."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ortmesh.errors import NotFound
from ortmesh.near import near
from ortmesh.serving.cards import Card, read_card

CARDS = Path(__file__).with_name("cards")
COMPANIONS = ("recognizer", "orienter", "speller")
"""The constants by which tasks find another model beside one."""


@cache
def _by_name() -> dict[str, Card]:
    cards = [read_card(path) for path in sorted(CARDS.glob("*.yaml"))]
    return {card.name: card for card in cards}


def cards() -> list[Card]:
    """All cards of the catalogue, ordered by name; `optional` ones are not fetched by default."""
    return list(_by_name().values())


def card(name: str) -> Card:
    """The card of a model; NotFound with the names that are close to it."""
    found = _by_name().get(name)
    if found is None:
        close = near(name, _by_name())
        told = f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(_by_name())}"
        raise NotFound(f"the catalogue has no model {name!r}; {told}", resource=("model", name))
    return found


def with_companions(chosen: Iterable[Card]) -> list[Card]:
    """The cards, each followed by those of the models that it names in its `preprocessing` to work with."""
    every, left, found = _by_name(), list(chosen), dict[str, Card]()
    while left:
        each = left.pop(0)
        if each.name not in found:
            found[each.name] = each
            named = [each.preprocessing.get(key) for key in COMPANIONS]
            left[:0] = [every[name] for name in named if name in every]
    return list(found.values())
