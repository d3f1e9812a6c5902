"""Phrases: a sentence's phonemes cut into what the voice says in one breath. Stage: task."""

from __future__ import annotations

import re
from collections.abc import Iterator

FIRST = 90
"""Phonemes, about 6 s: what is heard first must not wait for the rest of a long sentence."""
WHOLE = 144
"""A first sentence of so many is spoken at once all the same."""
USUAL = 240
"""About 16 s. The voice was taught with up to 400; clauses are cut apart rather than words."""
LONGEST = 360

_CLAUSE = re.compile(r"(?<=[,;:—)”.!?…]) ")


def phrases(phonemes: str, *, first: bool) -> Iterator[str]:
    """The sentence in one phrase where it is short enough; `first` for a text's first sentence."""
    limit = FIRST if first and len(phonemes) > WHOLE else USUAL
    held = ""
    for clause in _clauses(phonemes):
        if held and len(held) + 1 + len(clause) > limit:
            yield held
            held, limit = clause, USUAL
        else:
            held = f"{held} {clause}" if held else clause
    if held:
        yield held


def _clauses(phonemes: str) -> Iterator[str]:
    for clause in _CLAUSE.split(phonemes):
        while len(clause) > LONGEST:
            at = clause.rfind(" ", LONGEST // 2, LONGEST)
            at = at if at > 0 else LONGEST
            yield clause[:at]
            clause = clause[at:].lstrip()
        if clause:
            yield clause
