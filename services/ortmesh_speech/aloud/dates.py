"""Dates and times of day as they are read. Stage: task."""

from __future__ import annotations

import re

from ortmesh_speech.aloud.abbreviations import MONTHS
from ortmesh_speech.aloud.numbers import cardinal, ordinal, two_digits, year

_MONTHS = "January February March April May June July August September October November December"
MONTH_NAMES = _MONTHS.split()
_MONTH = "|".join(sorted([*MONTH_NAMES, *MONTHS], key=len, reverse=True))
_DAY = r"(0?[1-9]|[12]\d|3[01])"
_YEAR = r"((?:1\d|20)\d\d)"
_ISO = re.compile(rf"(?<![\w.-]){_YEAR}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?:T(?=\d\d:\d\d)|(?![\w-]))")
_SLASHED = re.compile(rf"(?<![\w./-])(\d\d?)([/.])(\d\d?)\2({_YEAR[1:-1]}|\d\d)(?![\w/-])(?!\.\d)")
_MONTH_FIRST = re.compile(
    rf"\b({_MONTH})\.? {_DAY}(?:st|nd|rd|th)?(?:\s?[-–]\s?{_DAY})?\b(?![:/%]|[.,]\d)(?:(?:,? ){_YEAR}\b)?"
)
_DAY_FIRST = re.compile(rf"\b([Tt]he )?{_DAY}(?:st|nd|rd|th)?(?: of)? ({_MONTH})\b(\.?)(?:,? {_YEAR}\b)?")
_MONTH_YEAR = re.compile(rf"\b({_MONTH})\.?,? {_YEAR}\b")
_CLOCK = re.compile(
    r"(?<![\w:.])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d)(?:\.\d{1,6})?)?(?![\d:])(?:\s?([AaPp])\.?[Mm]\b(\.?))?(Z\b)?"
)
_HOUR = re.compile(r"(?<![\w:.,])(1[0-2]|0?[1-9])\s?([AaPp])\.?[Mm]\b(\.?)")


def read_dates(text: str) -> str:
    """ "2026-11-26", "26 Nov 2026" and "11/26/2026" in words."""
    text = _ISO.sub(lambda found: _full(int(found[2]), int(found[3]), found[1]), text)
    text = _SLASHED.sub(_slashed, text)
    text = _MONTH_FIRST.sub(_month_first, text)
    text = _DAY_FIRST.sub(_day_first, text)
    return _MONTH_YEAR.sub(lambda found: f"{_month(found[1])} {year(int(found[2]))}", text)


def read_times(text: str) -> str:
    """ "3:45 pm" and "14:05" in words."""
    text = _CLOCK.sub(_clock, text)
    return _HOUR.sub(lambda found: f"{cardinal(int(found[1]))} {_half(found[2])}{_period(found[3], found)}", text)


def _slashed(found: re.Match[str]) -> str:
    """Month first with strokes, as in America, day first with periods; the other way round where only that fits."""
    first, second, written = int(found[1]), int(found[3]), found[4]
    month, day = (first, second) if found[2] == "/" else (second, first)
    if month > 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31) or (found[2] == "." and len(written) == 2):
        return found[0]
    if len(written) == 2:
        written = f"{'19' if int(written) > 50 else '20'}{written}"
    return _full(month, day, written)


def _full(month: int, day: int, written_year: str) -> str:
    """With a space behind it: a time may follow without one."""
    return f"{MONTH_NAMES[month - 1]} {ordinal(day)}, {year(int(written_year))} "


def _month_first(found: re.Match[str]) -> str:
    to = f" to {ordinal(int(found[3]))}" if found[3] else ""
    return f"{_month(found[1])} {ordinal(int(found[2]))}{to}{_of_year(found[4])}"


def _day_first(found: re.Match[str]) -> str:
    before, day, month, period, written_year = found.groups()
    kept = _period(period, found) if month in MONTHS or written_year else period
    return f"{before or 'the '}{ordinal(int(day))} of {_month(month)}{_of_year(written_year)}{kept}"


def _of_year(written: str | None) -> str:
    return f", {year(int(written))}" if written else ""


def _month(written: str) -> str:
    return MONTHS.get(written, written)


def _clock(found: re.Match[str]) -> str:
    hour, minute, half = int(found[1]), int(found[2]), found[4]
    words = cardinal(hour)
    if minute or hour == 0:
        words += f" {two_digits(minute)}" if minute else " hundred"
    elif not half:
        words += " o'clock" if hour <= 12 else " hundred"
    if found[3] and int(found[3]):
        words += f" and {cardinal(int(found[3]))} second{'' if found[3] == '01' else 's'}"
    if half:
        words += f" {_half(half)}{_period(found[5], found)}"
    return words


def _half(letter: str) -> str:
    return f"·{letter.upper()}M"


def _period(written: str, found: re.Match[str]) -> str:
    """The period of "p.m." stays where it ends the text."""
    return "." if written and not found.string[found.end() :].strip(" \"')”’") else ""
