"""Numbers that are no money, measure or date: cardinals, ordinals, years, fractions, phones, codes. Stage: task."""

from __future__ import annotations

import re

from ortmesh_speech.aloud.numbers import amount, cardinal, digits, ordinal, ordinal_of, year

_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?|1[ .-])?(?:\(\d{2,4}\)[ .-]?)?(?:\d{2,4}[ .-]){1,4}\d{3,5}(?![\w-])(?!\.\d)"
)
_PLUS_PHONE = re.compile(r"(?<!\w)\+(?=\d{6,15}\b)")
_VERSION = re.compile(r"(?<![\w.,])(v?)(\d{1,4}(?:\.\d{1,4}){2,5})(?![\w])(?!\.\d)")
_MIXED = re.compile(r"(?<![\w./,])(\d{1,4}) (\d{1,2})/(\d{1,2})(?![\w/])")
_FRACTION = re.compile(r"(?<![\w./,])(\d{1,3})/(\d{1,3})(?![\w/])")
_RANGE = re.compile(
    r"(?<![\w.,/-])(\d{1,3}(?:,\d{3})*|\d{1,6})\s?[-–]\s?(\d{1,3}(?:,\d{3})*|\d{1,6})(?![\w/-])(?![.,]\d)"
)
_SCORE = re.compile(r"(?<![\w.,:])(\d{1,3}):(\d{1,3})(?![\w:])")
_TIMES = re.compile(r"(?<=[\d)])\s?[x×*]\s?(?=\d)")
_FACTOR = re.compile(r"(?<![\w.,])(\d{1,6}(?:\.\d{1,3})?)x\b(?! ?(?:[-+=*^²]|minus))")
_FORMULA = re.compile(r"[\w)] ?[+=×÷] ?[\w(]")
_SUBTRACTION = re.compile(r"(?<=[\w)]) - (?=[\w(])")
_RATED = re.compile(r"(?<![\w./,])(\d{1,3}\.\d{1,2})/(\d{1,3})(?![\w/])")
_MINUS = re.compile(r"(?:(?<=^)|(?<=[\s(=<>]))[-−](?=\.?\d)")
_DECADE = re.compile(r"(?<![\w.,])(?:(?:(?<=the )|')([2-9]0)|(1[1-9]\d0|20\d0))'?s\b")
_ORDINAL = re.compile(r"(?<![\w.,])(\d{1,3}(?:,\d{3})+|\d{1,15})(?:st|nd|rd|th)\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.])(?:\d{1,3}(?:,\d{3})+|\d+)?\.\d+|(?<!\d)\d{1,3}(?:,\d{3})+(?!\d)|\d+")
_BETWEEN = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])-(?=\d)|(?<=\d)-(?=[^\W\d_])")
_CODE = re.compile(r"\b(?=\w{0,20}\d)(?=\w{0,20}[A-Z])[A-Z0-9]{2,20}\b")
PARTS = {2: "half", 4: "quarter"}
BARE_YEARS = range(1100, 2100)
CODED_YEARS = range(1990, 2100)
"""In "FY2023", but "BA2490" is a flight."""
LONGEST_CARDINAL = 9
"""Digits without commas: more of them are a code or a telephone's."""


def read_digits(text: str) -> str:
    """Every digit in words."""
    if _FORMULA.search(text):
        text = _SUBTRACTION.sub(" minus ", text)
    text = _PHONE.sub(_phone, text)
    text = _PLUS_PHONE.sub("plus ", text)
    text = _VERSION.sub(lambda found: ("version " if found[1] else "") + _version(found[2]), text)
    text = _MIXED.sub(_mixed, text)
    text = _FRACTION.sub(_fraction, text)
    text = _RATED.sub(lambda found: f"{amount(found[1])} out of {amount(found[2])}", text)
    text = _RANGE.sub(lambda found: f"{_plain(found[1])} to {_plain(found[2])}", text)
    text = _SCORE.sub(lambda found: f"{_plain(found[1])} to {_plain(found[2])}", text)
    text = _TIMES.sub(" times ", text)
    text = _FACTOR.sub(lambda found: f"{amount(found[1])} times", text)
    text = _MINUS.sub("minus ", text)
    text = _ORDINAL.sub(lambda found: ordinal_of(found[1]), text)
    text = _CODE.sub(_code, text)
    text = _BETWEEN.sub(" ", text)
    return _NUMBER.sub(lambda found: _plain(found[0]), text)


def read_decades(text: str) -> str:
    """ "1990s", "'80s" and "the 80s" in words."""
    return _DECADE.sub(_decade, text)


def _plain(number: str) -> str:
    """A number alone: `"1984"` as a year, `"1,984"` not, `"0042"` and what is very long digit by digit."""
    if not number.isdigit():
        return amount(number)
    if len(number) > LONGEST_CARDINAL:
        return ", ".join(digits(number[at : at + 3]) for at in range(0, len(number), 3))
    if len(number) == 4 and int(number) in BARE_YEARS:
        return year(int(number))
    return amount(number)


def _phone(found: re.Match[str]) -> str:
    """A group at a time; what has too few digits for a telephone is left to the others."""
    text, groups = found[0], re.findall(r"\d+", found[0])
    count = sum(map(len, groups))
    short = text == f"{groups[0]}-{groups[-1]}" and [*map(len, groups)] == [3, 4]
    if not short and not (9 <= count <= 15 and (len(groups) > 2 or text[0] in "+(0")):
        return text
    return ("plus " if text.startswith("+") else "") + ", ".join(digits(group) for group in groups)


def _version(number: str) -> str:
    return " point ".join(amount(part) for part in number.split("."))


def _mixed(found: re.Match[str]) -> str:
    top, bottom = int(found[2]), int(found[3])
    if not 0 < top < bottom:
        return found[0]
    return f"{amount(found[1])} and {'a' if top == 1 else cardinal(top)} {_part(top, bottom)}"


def _fraction(found: re.Match[str]) -> str:
    top, bottom = int(found[1]), int(found[2])
    if (top, bottom) in ((24, 7), (9, 11)):
        return f"{cardinal(top)} {cardinal(bottom)}"
    if top == bottom:
        return f"{cardinal(top)} out of {cardinal(bottom)}"
    if bottom < 2 or top > 99:
        return f"{cardinal(top)} over {cardinal(bottom)}"
    return f"{cardinal(top)} {_part(top, bottom)}"


def _part(top: int, bottom: int) -> str:
    word = PARTS.get(bottom) or ordinal(bottom)
    if top == 1:
        return word
    return "halves" if word == "half" else f"{word}s"


def _decade(found: re.Match[str]) -> str:
    words = cardinal(int(found[1])) if found[1] else year(int(found[2]))
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def _code(found: re.Match[str]) -> str:
    """ "MP3", "A4", "H2O", "B2B": letters and digits one by one, numbers of two digits as such."""
    return " ".join(map(_part_of_code, re.findall(r"[A-Z]+|\d+", found[0])))


def _part_of_code(part: str) -> str:
    if part.isalpha():
        return f"·{part}"
    year_like = len(part) == 4 and int(part) in CODED_YEARS
    return _plain(part) if len(part) < 3 or year_like else digits(part)
