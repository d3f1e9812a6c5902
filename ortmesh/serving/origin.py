"""Origin: from what a version was made, so that a corrected card or recipe reaches a store that has it. Stage: store.

A card that a person edited in the store stays as it is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ortmesh.serving.cards import CARD_FILE, Card, read_card
from ortmesh.serving.convert import RECIPES

ORIGIN_FILE = ".origin.json"

Standing = Literal["current", "outdated", "edited", "foreign"]


def note(folder: Path, pulled: Card, installed: Card) -> None:
    """Writes down in a version's folder what was pulled and what the card was then."""
    content = {"made_from": _fingerprint(pulled), "card": installed.model_dump(mode="json", exclude_unset=True)}
    (folder / ORIGIN_FILE).write_text(json.dumps(content), encoding="utf-8")


def standing(folder: Path, card: Card) -> Standing:
    """How an installed version stands to the card that is pulled now: `current`, `outdated` (made from an older
    card or recipe), `edited` (outdated, but a person changed its card since) or `foreign` (it was never pulled).
    """
    path = folder / ORIGIN_FILE
    if not path.is_file():
        return "foreign"
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["made_from"] == _fingerprint(card):
        return "current"
    try:
        untouched = read_card(folder / CARD_FILE) == Card.model_validate(content["card"])
    except ValueError:  # either was written for another version of the schema
        untouched = False
    return "outdated" if untouched else "edited"


def _fingerprint(card: Card) -> str:
    digest = hashlib.sha256(card.model_dump_json(exclude_unset=True).encode())
    for path in _recipe_files(card.recipe):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _recipe_files(recipe: str | None) -> Iterator[Path]:
    """The recipe and what recipes share."""
    package = importlib.util.find_spec(RECIPES) if recipe is not None else None
    if package is not None:
        for folder in map(Path, package.submodule_search_locations or ()):
            yield from (path for path in sorted(folder.glob("*.py")) if path.stem == recipe or path.name[0] == "_")
