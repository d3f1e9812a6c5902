"""Numbers in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_speech.aloud.numbers import amount, cardinal, ordinal, ordinal_of, year


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (101, "one hundred one"),
        (1001, "one thousand one"),
        (10**6, "one million"),
        (-7, "minus seven"),
    ],
)
def test_cardinals(number: int, words: str) -> None:
    assert cardinal(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "first"), (12, "twelfth"), (20, "twentieth"), (33, "thirty third"), (100, "one hundredth")],
)
def test_ordinals(number: int, words: str) -> None:
    assert ordinal(number) == words
    assert ordinal_of(f"{number:,}") == words


def test_ordinals_of_more_digits_than_have_names_are_read_one_by_one() -> None:
    assert ordinal_of("999,999,999,999,999,999").endswith("nine hundred ninety ninth")
    assert ordinal_of("1" + 7 * ",000") == f"one {'zero ' * 20}zeroth"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1066, "one thousand sixty six"),
        (1500, "fifteen hundred"),
        (1901, "nineteen oh one"),
        (1999, "nineteen ninety nine"),
        (2009, "two thousand nine"),
        (2026, "twenty twenty six"),
    ],
)
def test_years(number: int, words: str) -> None:
    assert year(number) == words


@given(st.integers(0, 10**18 - 1))
def test_no_two_numbers_are_said_alike(number: int) -> None:
    """The words say the number again."""
    assert _number(cardinal(number)) == number


@given(st.from_regex(r"[0-9]{1,40}(\.[0-9]{1,40})?", fullmatch=True))
def test_any_number_can_be_said(written: str) -> None:
    assert not any(character.isdigit() for character in amount(written))


def _number(words: str) -> int:
    values = {cardinal(value): value for value in (*range(20), *range(20, 100, 10))}
    scales = {cardinal(1000**power).removeprefix("one "): 1000**power for power in range(1, 6)}
    total = group = 0
    for word in words.replace("-", " ").split():
        if word in scales:
            total, group = total + group * scales[word], 0
        elif word == "hundred":
            group *= 100
        else:
            group += values[word]
    return total + group
