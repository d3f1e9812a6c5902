"""Abbreviations of English and what they stand for. Stage: task.

What may be a word of its own ("sat.", "co.") counts as an abbreviation only as it is written here.
"""

from __future__ import annotations

import re
from typing import Final

TITLES: Final = {
    "Mr": "Mister", "Mrs": "Mrs", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "St": "Saint", "Mt": "Mount",
    "Ft": "Fort", "Gen": "General", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Capt": "Captain",
    "Lt": "Lieutenant", "Col": "Colonel", "Sgt": "Sergeant", "Cmdr": "Commander", "Rev": "Reverend",
    "Hon": "Honorable", "Pres": "President", "Cpl": "Corporal", "Maj": "Major", "Adm": "Admiral", "Messrs": "Messers",
    "Mme": "Madame", "Mlle": "Mademoiselle", "Supt": "Superintendent",
}  # fmt: skip
"""Before a name, with or without a period."""

STREETS: Final = {
    "St": "Street", "Dr": "Drive", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane", "Hwy": "Highway",
    "Pkwy": "Parkway", "Ct": "Court", "Sq": "Square",
}  # fmt: skip
"""Behind a name."""

MONTHS: Final = {
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Jun": "June", "Jul": "July", "Aug": "August",
    "Sep": "September", "Sept": "September", "Oct": "October", "Nov": "November", "Dec": "December",
}  # fmt: skip
DAYS: Final = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
NAMES: Final = {
    **MONTHS, **DAYS, "Inc": "Incorporated", "Ltd": "Limited", "Corp": "Corporation", "Co": "Company",
    "Bros": "Brothers", "Jr": "Junior", "Sr": "Senior", "Dept": "Department", "Univ": "University",
    "Assn": "Association", "Govt": "Government", "Apt": "Apartment", "Bldg": "Building", "Ste": "Suite",
    "Vol": "Volume", "Fig": "Figure", "Ch": "Chapter", "Ext": "Extension", "Tel": "Telephone",
}  # fmt: skip
"""With a period, written so."""

WORDS: Final = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "vs": "versus", "cf.": "compare",
    "approx.": "approximately", "et al.": "and others", "ca.": "circa", "incl.": "including", "excl.": "excluding",
    "esp.": "especially", "avg.": "average", "vol.": "volume", "fig.": "figure", "figs.": "figures", "pp.": "pages",
    "dept.": "department", "ext.": "extension", "tel.": "telephone", "ltd.": "limited", "misc.": "miscellaneous",
    "ph.d.": "·PHD", "tsp.": "teaspoons", "tbsp.": "tablespoons",
    "a.k.a.": "also known as", "aka": "also known as", "w/o": "without", "w/": "with",
}  # fmt: skip
"""Anywhere, in any case."""

_GO_ON = "e.g i.e vs cf approx ca incl excl esp a.k.a"
GO_ON: Final = frozenset(_GO_ON.split())
"""Their period ends no sentence, whatever follows."""
_NUMBERED = "no nos c p pp vol sec ver ch fig figs eq art ext apt ste tel"
NUMBERED: Final = frozenset(_NUMBERED.split())
"""Their period ends no sentence when a number follows."""

_NAME = r"[A-Z][\w'-]*"
_STREET = re.compile(rf"(?<=\w) ({'|'.join(STREETS)})(\.?)(?![\w'])(?!\.\w)(?=( {_NAME})?)")
_TITLE = re.compile(rf"\b({'|'.join(TITLES)})(?:\.(?= ?\w)|(?= [A-Z]\w))")
_WITH_PERIOD = re.compile(rf"\b({'|'.join(sorted(NAMES, key=len, reverse=True))})\.(?!\w)")
_WORD = re.compile(
    rf"(?<![\w./])({'|'.join(re.escape(word) for word in sorted(WORDS, key=len, reverse=True))})(?![\w/])",
    re.IGNORECASE,
)
_COUNTED: Final = {
    "no": "number", "nos": "numbers", "c": "circa", "p": "page", "sec": "section", "ver": "version",
    "apt": "apartment", "ste": "suite", "ch": "chapter", "art": "article", "eq": "equation",
}  # fmt: skip
_NUMBER = re.compile(rf"\b({'|'.join(_COUNTED)})\. ?(?=\d)", re.IGNORECASE)
_INITIALS = re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,}(?!\w)")


def spell_out(text: str) -> str:
    """Abbreviations in full. The period of one that ends the text stays: it ends the sentence, too."""
    text = _NUMBER.sub(lambda found: f"{_COUNTED[found[1].lower()]} ", text)
    text = _STREET.sub(_street, text)
    text = _TITLE.sub(lambda found: TITLES[found[1]], text)
    text = _WITH_PERIOD.sub(lambda found: NAMES[found[1]] + _end(found), text)
    text = _WORD.sub(lambda found: WORDS[found[1].lower()] + _end(found), text)
    return _INITIALS.sub(lambda found: f"·{found[0].replace('.', '').upper()}{_end(found)}", text)


def _street(found: re.Match[str]) -> str:
    """ "Main St." is a street; "the St. Lawrence" is none, nor is "Ask Dr. Lee": there a name follows."""
    before = found.string[: found.start()].rsplit(" ", 1)[-1]
    if not (before[:1].isupper() or before[:1].isdigit()) or (found[3] and found[1] in TITLES):
        return found[0]
    return f" {STREETS[found[1]]}{_end(found)}"


def _end(found: re.Match[str]) -> str:
    ends = not found.string[found.end() :].strip(" \"')]”’")
    return "." if ends and found[0].endswith(".") else ""
