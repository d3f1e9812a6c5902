"""Spans: pieces of a text that a model's tags or a pattern name, and which stand where they overlap. Stage: task."""

from __future__ import annotations

import unicodedata
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ortmesh.serving.types import Array

OUTSIDE = "O"
JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text, in code points."""

    type: str
    start: int
    end: int
    """Exclusive."""
    score: float
    by_pattern: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A word's place in the text, in code points."""

    start: int
    end: int


def types_of(labels: Iterable[str]) -> tuple[str, ...]:
    """The types in BIO tags, in their order: B-CITY, I-CITY, O → CITY."""
    return tuple(dict.fromkeys(label[2:] for label in labels if label != OUTSIDE))


def tagged(text: str, words: Sequence[Word], probabilities: Array, labels: Sequence[str]) -> list[Span]:
    """The spans in a text whose words have tags with these probabilities f32 [words, labels].

    A word's tag is the type for which beginning and being inside are most probable together; a span goes on while the
    type does, until a word that begins another. What is not set off by a space begins none: "O'Connor" is one.
    """
    types = types_of(labels)
    begins = probabilities[:, [labels.index(f"B-{name}") for name in types]]
    insides = probabilities[:, [labels.index(f"I-{name}") for name in types]]
    scores = begins + insides
    best = scores.argmax(axis=1)
    spans: list[tuple[int, list[int]]] = []
    outside = probabilities[:, labels.index(OUTSIDE)]
    for index, kind in enumerate(best.tolist()):
        if outside[index] >= scores[index, kind]:
            continue
        goes_on = bool(spans) and spans[-1][0] == kind and spans[-1][1][-1] == index - 1
        apart = index > 0 and words[index].start > words[index - 1].end
        if goes_on and not (apart and begins[index, kind] > insides[index, kind]):
            spans[-1][1].append(index)
        else:
            spans.append((kind, [index]))
    return [
        Span(
            type=types[kind],
            start=words[members[0]].start,
            end=with_marks(text, words[members[-1]].end),
            score=float(min(np.mean(scores[members, kind]), 1)),
        )
        for kind, members in spans
    ]


def with_marks(text: str, end: int) -> int:
    """The end of a span with the marks that belong to its last character: tokenizers drop accents written apart."""
    while end < len(text) and (text[end] == JOINER or unicodedata.category(text[end]).startswith("M")):
        end += 1
    return end


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """The spans that stand, in the order of the text.

    Where two overlap, one by a pattern beats a model's, a surer pattern a less sure one, then the longer the shorter.
    """
    starts: list[int] = []
    stand: list[Span] = []
    for span in sorted(spans, key=_rank):
        place = bisect(starts, span.start)
        before_ends = stand[place - 1].end if place else 0
        next_starts = starts[place] if place < len(starts) else span.end
        if before_ends <= span.start and span.end <= next_starts:
            starts.insert(place, span.start)
            stand.insert(place, span)
    return stand


def _rank(span: Span) -> tuple[bool, float, int, int]:
    return not span.by_pattern, -span.score if span.by_pattern else 0, span.start - span.end, span.start
