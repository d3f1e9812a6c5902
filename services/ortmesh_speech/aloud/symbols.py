"""Characters that are no words: signs by their names, emoji too, and what nobody can say left out. Stage: task."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

SIGNS: Final = {
    "&": "and", "+": "plus", "=": "equals", "@": "at", "#": "hash", "%": "percent", "<": "less than",
    ">": "greater than", "≤": "at most", "≥": "at least", "≠": "is not", "≈": "about", "±": "plus or minus",
    "×": "times", "÷": "divided by", "√": "the square root of", "∞": "infinity", "§": "section", "¶": "paragraph",
    "°": "degrees", "$": "dollars", "€": "euros", "£": "pounds", "¥": "yen", "¢": "cents", "‰": "per mille",
    "©": "copyright", "→": "to", "⇒": "therefore", "∑": "sum", "∫": "integral", "∈": "in", "µ": "micro", "Ω": "ohm",
    "¬": "not", "∧": "and", "∨": "or", "½": "one half", "¼": "one quarter", "¾": "three quarters",
}  # fmt: skip
PAUSES: Final = {
    "―": "—", "‒": "-", "‐": "-", "‑": "-", "−": "-", "…": "…", "。": ".", "、": ",", "，": ",", "！": "!",
    "？": "?", "：": ":", "；": ";", "؟": "?", "،": ",", "।": ".", "|": ",", "•": ",", "·": " ", "‘": "'", "’": "'",
    "ʼ": "'", "´": "'", "`": "'", "‚": ",", "„": '"', "“": '"', "”": '"', "«": '"', "»": '"', "[": "(", "]": ")",
    "{": "(", "}": ")", "¿": "", "¡": "",
}  # fmt: skip
"""What is only another way to write a sign that the voice knows."""
TYPED: Final = {"<=": "≤", ">=": "≥", "!=": "≠", "==": "=", "->": "→", "=>": "⇒", "<-": "←"}
"""Signs as programs write them."""
LONGEST_FOLD: Final = 6
OF_INK: Final = frozenset(["heavy", "black", "white", "sign", "symbol"])
"""Words of characters' names that nobody says."""
EMOJI = re.compile("[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]")
_DROPPED = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\ufeff\u00ad]")
_MARK = re.compile(r"^(?:#{1,6}|>+)\s")
"""Of a heading or a quotation in Markdown."""
_TYPED = re.compile("|".join(TYPED))
_DOT = re.compile(r"(?<=[^\W\d_]{2})\.(?=([^\W\d_]))")
_FLAG = re.compile("([\U0001f1e6-\U0001f1ff])([\U0001f1e6-\U0001f1ff])")
_REPEATED = re.compile(r"([^\w\s.])\1{2,}")
_EMOJI_RUN = re.compile(f"({EMOJI.pattern})(?:\\s?\\1)+")


def plain(text: str) -> str:
    """Other ways to write the same characters in one way: quotes, dashes, spaces, full-width and styled letters."""
    text = _MARK.sub("", _DROPPED.sub("", text).lstrip())
    for fraction, words in (("½", "1/2"), ("¼", "1/4"), ("¾", "3/4"), ("⅓", "1/3"), ("⅔", "2/3"), ("⅛", "1/8")):
        text = re.sub(rf"(?<=\d)\s?{fraction}", f" {words}", text).replace(fraction, words)
    text = _TYPED.sub(lambda found: f" {TYPED[found[0]]} ", text)
    for power in "²³":
        text = re.sub(rf"(?<!\bm)(?<!km)(?<!cm){power}", " squared " if power == "²" else " cubed ", text)
    text = "".join(map(_folded, text))
    text = "".join(_digit(character) for character in text)
    text = "".join(PAUSES.get(character, character) for character in unicodedata.normalize("NFC", text))
    return re.sub(r"\s+", " ", text).strip()


def read_signs(text: str) -> str:
    """What is left of signs and emoji in words; letters of other scripts than Latin are left out."""
    text = _FLAG.sub(_flag, _EMOJI_RUN.sub(r"\1", text))
    text = _REPEATED.sub(r"\1", text)
    text = text.replace("–", " - ").replace("_", " ")
    text = _DOT.sub(lambda found: ". " if found[1].isupper() else " dot ", text)
    text = re.sub(r"\b(and)/(or)\b", r"\1 \2", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=[^\W\d_]) ?/ ?(?=[^\W\d_])", " slash ", text)
    return "".join(map(_sign, _read_formulas(text)))


def _read_formulas(text: str) -> str:
    """ "a*b", "x^2" and "~5", whose digits are words by now."""
    text = re.sub(r"(?<=\b\w)\*(?=\w\b)", " times ", text)
    text = re.sub(r"(?<=[\w)])\^(two|three)\b", lambda found: " squared" if found[1] == "two" else " cubed", text)
    text = re.sub(r"(?<=\w)\^(?=\w)", " to the power of ", text)
    return re.sub(r"~(?=\s?\w)", "about ", text)


def _folded(character: str) -> str:
    """Without style and width; a few signs that stand for whole Arabic phrases stay what they are."""
    folded = character if character in "²³…·" else unicodedata.normalize("NFKC", character)
    return folded if len(folded) <= LONGEST_FOLD else character


def _digit(character: str) -> str:
    """Digits of other scripts as ours."""
    return character if character.isascii() or not character.isdecimal() else str(unicodedata.decimal(character))


def _flag(found: re.Match[str]) -> str:
    country = "".join(chr(ord(letter) - 0x1F1E6 + ord("A")) for letter in found.groups())
    return f" flag ·{country} "


def _sign(character: str) -> str:
    if character.isascii() and (character.isalnum() or character in " .,!?;:'\"()-"):
        return character
    if character in SIGNS:
        return f" {SIGNS[character]} "
    if character in "…—·":
        return character
    if character.isalpha():
        return character if _is_latin(character) else _greek(character)
    if EMOJI.match(character):
        return f" {_emoji_name(character)} "
    if unicodedata.category(character) == "Mn":
        return ""
    return " "


def _emoji_name(character: str) -> str:
    """As people call it: "❤" is a heart, whatever "HEAVY BLACK HEART" says of its ink."""
    words = unicodedata.name(character, "").lower().replace("-", " ").split()
    return " ".join(word for word in words if word.isalpha() and word not in OF_INK)


def _is_latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN")


def _greek(character: str) -> str:
    """A letter of formulas by its name; other scripts' letters are left out."""
    name = unicodedata.name(character, "")
    plain_letter = name.startswith("GREEK ") and "LETTER" in name and "WITH" not in name
    return f" {name.split()[-1].lower()} " if plain_letter else " "
