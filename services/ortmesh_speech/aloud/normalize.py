"""Normalization: a sentence as it is written to the words and pauses that are read. Stage: task.

What comes out has letters of Latin scripts, apostrophes, hyphens and the pauses `. , ! ? ; : — … " ( )`; a word that
begins with `·` is spelled. The order matters: an e-mail address is read before its digits are, a date before its years.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from ortmesh_speech.aloud.abbreviations import spell_out
from ortmesh_speech.aloud.capitals import read_capitals
from ortmesh_speech.aloud.dates import read_dates, read_times
from ortmesh_speech.aloud.digits import read_decades, read_digits
from ortmesh_speech.aloud.links import read_links
from ortmesh_speech.aloud.quantities import read_measures, read_money, read_percent
from ortmesh_speech.aloud.romans import read_romans
from ortmesh_speech.aloud.symbols import plain, read_signs

STEPS: Final[Sequence[Callable[[str], str]]] = (
    plain,
    read_capitals,
    read_links,
    read_dates,
    read_times,
    read_decades,
    read_money,
    read_percent,
    read_measures,
    spell_out,
    read_romans,
    read_digits,
    read_signs,
)

_SPACE_BEFORE_PAUSE = re.compile(r" +(?=[.,!?;:…)])")
_CLOSE_PAUSE = re.compile(r"(?<=\w[,;:])(?=\w)")
_PAUSES = re.compile(r"[,;:—](?:\s*[,;:—])+")
_PAUSE_BEFORE_END = re.compile(r"[,;:—\s]+(?=[.!?…])")
_LOOSE_HYPHEN = re.compile(r"( ?)(?:(?<!\w)-+|-+(?!\w)|--+)( ?)")
_BRACKETED_NOTHING = re.compile(r"\(\s*\)|\"\s*\"")


def spoken(sentence: str) -> str:
    """The sentence in words; empty when it has none."""
    text = sentence
    for step in STEPS:
        text = step(text)
    return _tidy(text)


def _hyphen(found: re.Match[str]) -> str:
    """A dash between words is a pause; a hyphen that has lost its neighbour is nothing."""
    return ", " if (found[1] and found[2]) or "--" in found[0] else " "


def _tidy(text: str) -> str:
    text = _LOOSE_HYPHEN.sub(_hyphen, re.sub(r"\s+", " ", text))
    text = _BRACKETED_NOTHING.sub(" ", text)
    text = _SPACE_BEFORE_PAUSE.sub("", re.sub(r"\s+", " ", text))
    text = _CLOSE_PAUSE.sub(" ", text)
    text = _PAUSES.sub(lambda found: found[0][0], text)
    text = _PAUSE_BEFORE_END.sub("", text).strip().lstrip(".,!?;:…—)-' ")
    return text if re.search(r"[^\W\d_]", text) else ""
