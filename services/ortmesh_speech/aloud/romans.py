"""Roman numerals where they are obvious: "Henry VIII", "World War II", "Chapter IV". Stage: task."""

from __future__ import annotations

import re
from typing import Final

from ortmesh_speech.aloud.numbers import cardinal, ordinal

_RULERS = (
    "Pope King Queen Henry Louis Edward George William Charles James Richard Elizabeth Napoleon Pius Benedict Leo Paul"
    " Ramses Frederick Philip Alexander Nicholas Peter Catherine Ivan Umberto Emmanuel Gustav Christian Ferdinand"
    " Francis Gregory Innocent Clement Urban Julius Mary Margaret Otto Rudolf Wilhelm Haakon Olav Harald Carl Karl"
    " Felipe Juan Alfonso Joseph Leopold Baudouin Albert Theodore Constantine Basil Cosimo Mehmed Murad Selim"
)
RULERS: Final = frozenset(_RULERS.split())
"""Behind these a numeral is an ordinal: "Henry the eighth"."""
_COUNTED = (
    "chapter part act scene section volume book phase article war type level stage class grade bowl apollo gemini"
    " fantasy episode round rocky appendix figure table unit mark title vol"
)
COUNTED: Final = frozenset(_COUNTED.split())
"""Behind these it is a number, a lone letter too: "Part I"."""

_ROMAN = re.compile(r"\b([A-Za-z][a-z]+)\.? ((?=[IVXL]+\b)(?:XL|L?X{0,3})(?:IX|IV|V?I{0,3}))\b(?<=[IVXL])(?![.'’-]\w)")
_VALUES: Final = {"I": 1, "V": 5, "X": 10, "L": 50}


def read_romans(text: str) -> str:
    """Numerals up to 89 behind a name or a word that is counted; what is none ("IIII") stays."""
    return _ROMAN.sub(_roman, text)


def value(numeral: str) -> int:
    """ "XIV" → 14; the numeral must be well formed."""
    values = [_VALUES[letter] for letter in numeral]
    return sum(-one if one < following else one for one, following in zip(values, [*values[1:], 0], strict=True))


def _roman(found: re.Match[str]) -> str:
    word, numeral = found[1], found[2]
    if word in RULERS and (numeral != "I" or word not in ("Mary", "Paul", "Christian")):
        return f"{word} the {ordinal(value(numeral))}"
    if word.lower() in COUNTED or (len(numeral) > 1 and word[0].isupper() and numeral not in ("XL", "XX", "LI")):
        return f"{word} {cardinal(value(numeral))}"
    return found[0]
