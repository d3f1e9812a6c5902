"""Amounts of money, percentages and measures as they are read. Stage: task."""

from __future__ import annotations

import re
from typing import Final

from ortmesh_speech.aloud.numbers import amount

CURRENCIES: Final = {
    "$": ("dollar", "cent"), "US$": ("US dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"),
    "¥": ("yen", ""), "₹": ("rupee", "paisa"), "₩": ("won", ""), "₽": ("ruble", "kopeck"), "฿": ("baht", "satang"),
    "₿": ("bitcoin", ""), "USD": ("dollar", "cent"), "EUR": ("euro", "cent"), "GBP": ("pound", "penny"),
    "CHF": ("Swiss franc", "centime"), "JPY": ("yen", ""),
}  # fmt: skip
"""A unit and its hundredth; those that have none are read as decimals."""
PLURALS: Final = {"penny": "pence", "yen": "yen", "won": "won", "baht": "baht", "satang": "satang", "hertz": "hertz",
                  "foot": "feet", "inch": "inches", "": ""}  # fmt: skip
SCALES: Final = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "t": "trillion"}

UNITS: Final = {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "µm": "micrometer", "m": "meter",
    "ft": "foot", "mi": "mile", "yd": "yard", "kg": "kilogram", "mg": "milligram", "µg": "microgram", "g": "gram",
    "lb": "pound", "lbs": "pound", "oz": "ounce", "ml": "milliliter", "mL": "milliliter", "l": "liter", "L": "liter",
    "km/h": "kilometer per hour", "kph": "kilometer per hour", "mph": "mile per hour", "m/s": "meter per second",
    "km²": "square kilometer", "m²": "square meter", "cm²": "square centimeter", "m³": "cubic meter",
    "cm³": "cubic centimeter", "sq ft": "square foot", "sq mi": "square mile", "inches": "inch", "sq m": "square meter",
    "ha": "hectare", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "B": "byte",
    "KB": "kilobyte", "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte",
    "KiB": "kibibyte", "MiB": "mebibyte", "GiB": "gibibyte", "Mbps": "megabit per second",
    "Gbps": "gigabit per second", "Mbit/s": "megabit per second", "MB/s": "megabyte per second",
    "GB/s": "gigabyte per second", "h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute",
    "s": "second", "sec": "second", "secs": "second", "ms": "millisecond", "µs": "microsecond", "ns": "nanosecond",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "kWh": "kilowatt hour", "MWh": "megawatt hour",
    "V": "volt", "mV": "millivolt", "kV": "kilovolt", "mA": "milliampere", "mAh": "milliampere hour",
    "Ω": "ohm", "kΩ": "kilohm", "J": "joule", "kJ": "kilojoule", "kcal": "kilocalorie", "N": "newton",
    "Pa": "pascal", "hPa": "hectopascal", "kPa": "kilopascal", "bar": "bar", "psi": "·PSI", "rpm": "·RPM",
    "fps": "frame per second", "dB": "decibel", "px": "pixel", "ppm": "part per million", "mol": "mole",
    "ct": "cent", "¢": "cent", "yrs": "year", "°C": "degree Celsius", "°F": "degree Fahrenheit",
    "° C": "degree Celsius", "° F": "degree Fahrenheit", "°": "degree", "K": "·K",
}  # fmt: skip

NAMES: Final = frozenset("KBlLNJ")
"""Right behind a number they are names more often than units: "4K", "221B"."""
_SHORTENED = "ft|in|lbs?|oz|mins?|hrs?|secs?|yd|mi|sq"

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+"
_SYMBOLS = "|".join(map(re.escape, sorted(CURRENCIES, key=len, reverse=True)))
_SCALE = r"(?:\s?(hundred|thousand|million|billion|trillion)|\s?(k|K|mn|[mM]|bn|[bB]|[tT]))?(?![\w])"
_MONEY = re.compile(
    rf"(-\s?)?(?<![\w])({_SYMBOLS})\s?({_NUMBER}){_SCALE}(?:\s?[-–]\s?(?:{_SYMBOLS})?({_NUMBER}){_SCALE})?"
)
_MONEY_BEHIND = re.compile(rf"(?<![\w.,])(-)?({_NUMBER}){_SCALE}\s?({_SYMBOLS})(?!\w)")
_PERCENT = re.compile(rf"(?<![\w.,])([-+]?)({_NUMBER})(?:\s?[-–]\s?({_NUMBER}))?\s?(%|‰)")
_UNITS = "|".join(map(re.escape, sorted(UNITS, key=len, reverse=True)))
_MEASURE = re.compile(
    rf"(?<![\w.,])([-+~]?)({_NUMBER})(?:\s?([-–x×])\s?({_NUMBER}))?(\s?-?)({_UNITS})(?![\w/°²³])(?!\.\w)(?!-\w)"
)
_PERIOD_OF_UNIT = re.compile(rf"(?<=\d)(\s?)({_SHORTENED})\.(?=\s[a-z0-9])")
_FEET = re.compile(r"(?<![\w.])(\d{1,2})['′]\s?(\d{1,2})(?:[\"″]|'')")
_INCHES = re.compile(r"(?<![\w.'])(\d{1,3}(?:\.\d+)?)[\"″](?=\s\w)")


def read_money(text: str) -> str:
    """ "$3.50", "€2m", "£1,200", "5 USD" in words."""
    text = _MONEY.sub(_money, text)
    return _MONEY_BEHIND.sub(lambda found: _sum(found[1], found[2], found[3] or found[4], CURRENCIES[found[5]]), text)


def read_percent(text: str) -> str:
    """ "12.5%" in words."""
    return _PERCENT.sub(_percent, text)


def read_measures(text: str) -> str:
    """ "5 km", "3.2 GB", "-20 °C", "6'2\\"" in words."""
    text = _FEET.sub(lambda found: f"{_counted(found[1], 'foot')} {_counted(found[2], 'inch')}", text)
    text = _INCHES.sub(lambda found: _counted(found[1], "inch"), text)
    text = _PERIOD_OF_UNIT.sub(lambda found: f"{found[1]}{'inches' if found[2] == 'in' else found[2]}", text)
    return _MEASURE.sub(_measure, text)


def _money(found: re.Match[str]) -> str:
    minus, symbol, first, word, letter, second, second_word, second_letter = found.groups()
    unit = CURRENCIES[symbol]
    scale, second_scale = word or letter, second_word or second_letter
    if second is None:
        return _sum(minus, first, scale, unit)
    lower = f"{amount(first)} {_scale(scale)}".strip()
    return f"{lower} to {_sum(None, second, second_scale, unit)}"


def _sum(minus: str | None, number: str, scale: str | None, unit: tuple[str, str]) -> str:
    """ "three dollars and fifty cents", "two million euros"."""
    sign = "minus " if minus else ""
    if scale:
        return f"{sign}{amount(number)} {_scale(scale)} {plural(unit[0])}"
    whole, _, hundredths = number.replace(",", "").partition(".")
    if len(hundredths) != 2 or not unit[1] or len(whole) > 15:
        return f"{sign}{_counted(number, unit[0])}"
    parts = [_counted(whole, unit[0])] if int(whole or 0) or hundredths == "00" else []
    if hundredths != "00":
        parts.append(_counted(str(int(hundredths)), unit[1]))
    return sign + " and ".join(parts)


def _scale(scale: str | None) -> str:
    return SCALES.get(scale.lower(), scale) if scale else ""


def _percent(found: re.Match[str]) -> str:
    to = f" to {amount(found[3])}" if found[3] else ""
    return f"{_sign(found[1])}{amount(found[2])}{to} {'percent' if found[4] == '%' else 'per mille'}"


def _measure(found: re.Match[str]) -> str:
    sign, first, between, second, gap, written = found.groups()
    unit = UNITS[written]
    if written in NAMES and gap == "" and second is None:
        return found[0]
    if between is None:
        counted = f"{amount(first)} {unit}" if "-" in gap else _counted(first, unit)  # "a 5-km run"
        return f"{_sign(sign)}{counted}"
    joint = "by" if between in "x×" else "to"
    return f"{_sign(sign)}{amount(first)} {joint} {_counted(second, unit)}"


def _sign(written: str) -> str:
    return {"-": "minus ", "+": "plus ", "~": "about "}.get(written, "")


def _counted(number: str, unit: str) -> str:
    return f"{amount(number)} {unit if number == '1' else plural(unit)}"


def plural(unit: str) -> str:
    """ "mile per hour" → "miles per hour", "degree Celsius" → "degrees Celsius", "foot" → "feet"."""
    if unit.startswith("·"):
        return unit
    head, joint, rest = unit.partition(" per ")
    words = head.split(" ")
    at = 0 if words[0] == "degree" else -1
    words[at] = PLURALS[words[at]] if words[at] in PLURALS else _with_s(words[at])
    return " ".join(words) + joint + rest


def _with_s(word: str) -> str:
    return word if word.endswith("hertz") else f"{word}s"
