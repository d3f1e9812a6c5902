"""Texts: what every task of this service takes, and what is wrong with one. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence

from ortmesh.errors import BadInput

MAX_TEXTS = 256
MAX_CHARACTERS = 100_000


def check_count(texts: Sequence[str]) -> None:
    """BadInput unless there are 1 to 256 texts."""
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise BadInput("texts", f"{len(texts)} texts: expected 1 to {MAX_TEXTS}")


def faults(texts: Sequence[str]) -> dict[int, BadInput]:
    """What is wrong with which texts; raised when the only text is wrong."""
    wrong = {index: error for index, text in enumerate(texts) if (error := fault(text, f"texts[{index}]")) is not None}
    if wrong and len(texts) == 1:
        raise wrong[0]
    return wrong


def fault(text: str, field: str) -> BadInput | None:
    """What is wrong with the text of a field, if anything."""
    if not text.strip():
        return BadInput(field, "expected a text that is not empty")
    if len(text) > MAX_CHARACTERS:
        return BadInput(field, f"{len(text)} characters: expected at most {MAX_CHARACTERS}")
    return None
