"""Patterns: right numbers are found where they are, wrong ones are not, and no text takes long."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh_nlp import patterns
from ortmesh_nlp.spans import without_overlaps


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in without_overlaps(patterns.find(text))]


RIGHT = [
    ("EMAIL", "eleanor.whitfield@example.org"),
    ("EMAIL", "o'neill+news@mail.example.co.uk"),
    ("URL", "https://en.wikipedia.org/wiki/Luhn_(disambiguation)?a=1#b"),
    ("URL", "http://192.168.0.1:8080/x"),
    ("URL", "www.example.com"),
    ("URL", "ftp://user:secret@files.example.com/a"),
    ("IP_ADDRESS", "192.168.0.17"),
    ("IP_ADDRESS", "fe80::1ff:fe23:4567:890a"),
    ("IP_ADDRESS", "::1"),
    ("PHONE", "+1 503-555-0142"),
    ("PHONE", "+49 (0) 30 901820"),
    ("PHONE", "+86 138 0013 8000"),
    ("PHONE", "+33.1.42.68.53.00"),
    # The issuers' and payment companies' published test numbers.
    ("CREDIT_CARD", "4111 1111 1111 1111"),
    ("CREDIT_CARD", "5555-5555-5555-4444"),
    ("CREDIT_CARD", "2223003122003222"),
    ("CREDIT_CARD", "3782 822463 10005"),
    ("CREDIT_CARD", "30569309025904"),
    ("CREDIT_CARD", "6011111111111117"),
    ("CREDIT_CARD", "4111\u00a01111\u00a01111\u00a01111"),
    # The registry's own examples.
    ("IBAN", "DE89 3704 0044 0532 0130 00"),
    ("IBAN", "DE89370400440532013000"),
    ("IBAN", "GB82 WEST 1234 5698 7654 32"),
    ("IBAN", "FR14 2004 1010 0505 0001 3M02 606"),
    ("IBAN", "NO93 8601 1117 947"),
    ("IBAN", "BE68 5390 0754 7034"),
    ("IBAN", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"),
    # The examples of authorities and of python-stdnum's documentation.
    ("US_SSN", "472-81-0094"),
    ("BE_NATIONAL_NUMBER", "85.07.30-033 28"),
    ("BR_CPF", "390.533.447-05"),
    ("CN_RESIDENT_ID", "11010519491231002X"),
    ("DE_TAX_ID", "86 095 742 719"),
    ("ES_DNI", "12345678Z"),
    ("ES_NIE", "X-1234567-L"),
    ("FI_HETU", "131052-308T"),
    ("FR_NIR", "2 55 08 14 168 025 38"),
    ("IT_FISCAL_CODE", "RCCMNL83S18D969H"),
    ("PL_PESEL", "44051401359"),
    ("SE_PERSONNUMMER", "880320-0016"),
]


@pytest.mark.parametrize("around", ["{}", "is {}, and", "({}).", "是{}。", "a={};", "🙂{}🙂", "»{}«"])
@pytest.mark.parametrize(("kind", "text"), RIGHT)
def test_what_is_right_is_found_and_nothing_else(kind: str, text: str, around: str) -> None:
    assert found(around.format(text)) == [(kind, text)]


def test_every_type_has_an_example_here() -> None:
    assert {kind for kind, _ in RIGHT} == set(patterns.TYPES)


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn
        "1234 5678 1234 5670",  # Luhn is right, but nobody issues 1
        "0000000000000000",
        "14111111111111111",
        "DE89 3704 0044 0532 0130 01",
        "DE89 3704 0044 0532 0130",
        "XX89 3704 0044 0532 0130 00",
        "000-12-3456",
        "666-12-3456",
        "472-81-00945",
        "85.07.30-033 29",
        "390.533.447-06",
        "110105194912310021",
        "11010519491331002X",
        "86095742710",
        "12345678A",
        "X1234567A",
        "131052-308U",
        "255081416802539",
        "RCCMNL83S18D969A",
        "44051401358",
        "880320-0017",
        "+1 503-555",
        "+999 123 456 789",
        "256.1.1.1",
        "1.2.3.4.5",
        "12:30:45",
        "std::vector",
        "a@b",
        "a@b.c",
        "@example.org",
        "x" * 65 + "@example.org",
        "http://localhosts",
        "3.14159265358979",
    ],
)
def test_what_is_wrong_is_not_found(text: str) -> None:
    assert found(f"it is {text} here") == []


def test_what_follows_a_number_is_no_part_of_it() -> None:
    text = "DE89 3704 0044 0532 0130 00 BIC, 4111 1111 1111 1111 05/27, BE68 5390 0754 7034 KBC, +1 503-555-0142 2"
    assert [piece for _, piece in found(text)] == [
        "DE89 3704 0044 0532 0130 00",
        "4111 1111 1111 1111",
        "BE68 5390 0754 7034",
        "+1 503-555-0142",
    ]


def test_a_wrong_number_does_not_hide_the_right_one_behind_it() -> None:
    assert found("AB12 DE89 3704 0044 0532 0130 00") == [("IBAN", "DE89 3704 0044 0532 0130 00")]


def test_the_end_of_a_sentence_is_no_part_of_an_address() -> None:
    text = "See https://example.com/a, mail:a@example.com. Or IP:10.0.0.1."
    assert [piece for _, piece in found(text)] == ["https://example.com/a", "a@example.com", "10.0.0.1"]


def test_check_digits_score_one_and_forms_less() -> None:
    scores = {span.type: span.score for span in patterns.find("4111111111111111 a@example.com 472-81-0094")}
    assert scores == {"CREDIT_CARD": 1.0, "EMAIL": 0.9, "US_SSN": 0.9}


# fmt: off
UNITS = (
    "a", "1", "a.", "a@", "a@a.", "a@a.aa", "a-", "@", "+", "+1", "+1-", "+1234567", "+49-30-901820", "1-",
    "12-", "123-45-6789", "4111111111111112", "AA00", "AA00AAAA", "DE89", "DE89370400440532013000", "http://",
    "http://a.aa", "http://a.aa/", "http://a.aa/((((", "https://a.aa/.", "http://[:", "www.a", "1.",
    "1.1.1.1", "1.1.1.1.", "::", ":1", "1::", "a:", "ab:cd:", "fe80::1", "12345678901", "AB", "A1", "XYZ-",
    "()", "(1)", "💩", "中", "0", "aa.bb@", "a'", "a'@", "a@b.b.b.", "a@b-b-b-",
)
# fmt: on


@pytest.mark.parametrize("gap", ["", " "])
def test_no_text_takes_long(gap: str) -> None:
    """A hundred thousand characters that almost fit, at most a few seconds of them: four times the text, no more
    than some four times the time of this thread."""
    for unit in UNITS:
        seconds = [timed(unit + gap, length) for length in (25_000, 100_000)]
        assert seconds[1] < max(10 * seconds[0], 4), unit


def timed(unit: str, length: int) -> float:
    text = (unit * length)[:length]
    began = time.thread_time()
    without_overlaps(patterns.find(text))
    return time.thread_time() - began


@pytest.mark.parametrize("kind", patterns.KINDS, ids=lambda kind: kind.type)
def test_whatever_has_a_form_can_be_checked(kind: patterns.Kind) -> None:
    """A library that raises for a number would fail the call."""

    @settings(max_examples=200, deadline=None)
    @given(st.from_regex(kind.form, fullmatch=True, alphabet=st.characters(codec="utf-8")))
    def check(text: str) -> None:
        assert kind.is_right(text) in (True, False)

    check()


@settings(deadline=None)
@given(st.text(st.sampled_from("aA19 @.+-:/()[]éДß中\u0301\0XYZDE\u00a0")))
def test_any_text_is_searched(text: str) -> None:
    spans = without_overlaps(patterns.find(text))
    assert all(left.end <= right.start for left, right in pairwise(spans))
