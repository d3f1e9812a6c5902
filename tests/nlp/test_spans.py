"""Spans: tags become pieces of the text, and of two that overlap one stands."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_nlp.spans import Span, Word, tagged, types_of, with_marks, without_overlaps

LABELS = ("O", "B-CITY", "I-CITY", "B-NAME", "I-NAME")


def spans_of(text: str, tags: str, sure: float = 0.9) -> list[tuple[str, str]]:
    """Spans of a text whose words, those that \\w+|\\S finds, have these tags."""
    words = [Word(*match.span()) for match in re.finditer(r"\w+|[^\w\s]", text)]
    probabilities = np.full((len(words), len(LABELS)), (1 - sure) / 4, np.float32)
    for row, tag in zip(probabilities, tags.split(), strict=True):
        row[LABELS.index(tag)] = sure
    found = tagged(text, words, probabilities, LABELS)
    assert all(0.8 < span.score <= 1 for span in found)
    return [(span.type, text[span.start : span.end]) for span in found]


def test_a_span_goes_on_while_its_type_does() -> None:
    assert spans_of("in New York City today", "O B-CITY I-CITY I-CITY O") == [("CITY", "New York City")]


def test_another_beginning_or_type_ends_it() -> None:
    text = "Ada Grace Paris"
    assert spans_of(text, "B-NAME B-NAME B-CITY") == [("NAME", "Ada"), ("NAME", "Grace"), ("CITY", "Paris")]


def test_a_span_may_lack_its_beginning() -> None:
    assert spans_of("to York", "O I-CITY") == [("CITY", "York")]


def test_what_no_space_sets_off_begins_nothing() -> None:
    assert spans_of("O'Connor", "B-NAME B-NAME B-NAME") == [("NAME", "O'Connor")]


def test_a_gap_ends_a_span() -> None:
    assert spans_of("Ada and Grace", "I-NAME O I-NAME") == [("NAME", "Ada"), ("NAME", "Grace")]


def test_a_text_without_words_has_no_spans() -> None:
    assert spans_of("", "") == []


def test_types_are_those_of_the_tags() -> None:
    assert types_of(LABELS) == ("CITY", "NAME")


@pytest.mark.parametrize(("text", "end"), [("e\u0301 x", 2), ("e", 1), ("❤\ufe0f\u200d🔥", 3), ("ab", 1)])
def test_marks_belong_to_the_character_before_them(text: str, end: int) -> None:
    assert with_marks(text, 1) == end


def test_a_pattern_beats_a_model_and_a_checked_one_another() -> None:
    model = Span("PHONE", 0, 30, 0.99)
    url, card = Span("URL", 5, 40, 0.9, by_pattern=True), Span("CARD", 10, 20, 1.0, by_pattern=True)
    assert without_overlaps([model, url, card]) == [card]
    assert without_overlaps([model, url]) == [url]


def test_of_two_alike_the_longer_stands_and_neighbours_do_not_overlap() -> None:
    short, long, beside = (Span("X", *place, 1.0, by_pattern=True) for place in ((0, 5), (2, 9), (9, 10)))
    assert without_overlaps([beside, short, long]) == [long, beside]


@given(st.lists(st.builds(lambda a, n, s, p: Span("X", a, a + n, s, p), st.integers(0, 50), st.integers(1, 20),
                          st.sampled_from([0.5, 0.9, 1.0]), st.booleans())))  # fmt: skip
def test_what_stands_is_in_order_and_what_fell_overlaps_it(spans: list[Span]) -> None:
    stand = without_overlaps(spans)
    assert all(left.end <= right.start for left, right in pairwise(stand))
    for span in spans:
        assert any(span.start < other.end and other.start < span.end for other in stand)
