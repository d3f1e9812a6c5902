"""What capitals tell: acronyms, and sentences in capitals, where they tell nothing. Stage: task."""

from __future__ import annotations

import re
from typing import Final

FEW_WORDS: Final = 3
"""So many words in capitals may be acronyms; more of them, and nothing else, are a sentence in capitals."""

_WORD = re.compile(r"[^\W\d_]{2,}")
_SHARP = re.compile(r"\b([A-G])#(?!\w)")
_LETTERS_AND = re.compile(r"\b([A-Z]{1,3})\s?&\s?([A-Z]{1,3})\b")
_LIKE_WORDS = re.compile(r"\b(IT|US|UN)\b")
_OK = re.compile(r"\bOK\b")


def read_capitals(text: str) -> str:
    """ "AT&T", "C#", "OK" and those acronyms that are words as well."""
    mixed = any(character.islower() for character in text)
    if not mixed and len(_WORD.findall(text)) > FEW_WORDS:
        return text.lower()
    text = _LETTERS_AND.sub(r"·\1 and ·\2", _SHARP.sub(r"·\1 sharp", text))
    return _OK.sub("okay", _LIKE_WORDS.sub(r"·\1", text)) if mixed else text
