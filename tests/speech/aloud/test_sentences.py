"""Where a text is cut into sentences, and a sentence into phrases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_speech.aloud.phrases import FIRST, LONGEST, WHOLE, phrases
from ortmesh_speech.aloud.sentences import LONGEST as LONGEST_SENTENCE
from ortmesh_speech.aloud.sentences import sentences


@pytest.mark.parametrize(
    "expected",
    [
        ["One.", "Two!", "Three?", "Four"],
        ["Dr. Smith met J. K. Rowling and Mr. W. Bush.", "They talked."],
        ["He lives on Main St.", "The shop is closed."],
        ["We saw St. Paul.", "It rained."],
        ["See No. 5 and fig. 3.", "Then go on."],
        ["It rained in Jan. 2020, e.g. Monday.", "Good."],
        ["Take plan B.", "It works."],
        ["It was I.", "He knew."],
        ['"Really?" she said.', '"Yes."', "Then...", "What?"],
        ["At 5 p.m. we left.", "It was 3.50 dollars."],
        ["Wait... no, go on."],
        ["(He left.)", "[She stayed.]", "End."],
    ],
    ids=lambda expected: expected[0],
)
def test_sentences_end_where_a_person_would_stop(expected: list[str]) -> None:
    assert [sentence.text for sentence in sentences(" ".join(expected))] == expected


def test_paragraphs_headings_and_lists_end_sentences_too() -> None:
    text = "A heading\n\nThis line was wrapped by an editor, as lines of letters\nare. It ends here.\n- milk\n- bread\n"
    found = list(sentences(text))
    assert [sentence.text for sentence in found] == [
        "A heading",
        "This line was wrapped by an editor, as lines of letters\nare.",
        "It ends here.",
        "- milk",
        "- bread",
    ]
    assert [sentence.ends_paragraph for sentence in found] == [True, False, True, True, True]


def test_sentences_of_scripts_without_spaces() -> None:
    assert [sentence.text for sentence in sentences("你好。世界!")] == ["你好。", "世界!"]


@given(st.text(max_size=1500))
def test_nothing_but_space_is_lost(text: str) -> None:
    found = [sentence.text for sentence in sentences(text)]
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(sentence) <= LONGEST_SENTENCE for sentence in found)


@pytest.mark.parametrize("unit", ["a", "a b ", "\n", "x\n\n", ". \n", "A. ", "。", ", "])
def test_a_long_text_is_cut_in_time(unit: str) -> None:
    """Linear: a test that took the square of it would run into the limit of two minutes."""
    text = (unit * 100_000)[:100_000]
    assert all(sentence.text for sentence in sentences(text))


def test_a_long_first_sentence_begins_with_a_short_phrase() -> None:
    sentence = ", ".join(["wˈʌn tˈu θɹˈi fˈɔɹ"] * 30)
    first, *rest = phrases(sentence, first=True)
    assert len(first) <= FIRST < min(map(len, rest[:-1]))
    assert ", ".join([first.rstrip(","), *(part.rstrip(",") for part in rest)]) == sentence
    assert len(next(phrases(sentence, first=False))) > FIRST


def test_a_short_sentence_is_one_phrase() -> None:
    sentence = "wˈʌn, tˈu, " * 12
    assert len(sentence) <= WHOLE
    assert list(phrases(sentence.strip(), first=True)) == [sentence.strip()]


@given(st.text("ab ,.", max_size=1000))
def test_phrases_are_never_too_long(sentence: str) -> None:
    parts = list(phrases(sentence, first=True))
    assert all(0 < len(part) <= LONGEST for part in parts)
    assert "".join("".join(parts).split()) == "".join(sentence.split())
