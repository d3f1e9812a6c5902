"""Addresses of the web and of e-mail, names of accounts, paths: read part by part. Stage: task."""

from __future__ import annotations

import re
from typing import Final

from ortmesh_speech.aloud.numbers import digits

_AS_WORDS = "com org net info biz app dev mil name pro club shop site online blog wiki news"
AS_WORDS: Final = frozenset(_AS_WORDS.split())
"""Endings of names that are words or said as such; the others are spelled: "dot ·U·K"."""
SIGNS: Final = {
    ".": "dot", "/": "slash", "\\": "backslash", "-": "dash", "_": "underscore", "~": "tilde", "?": "question mark",
    "=": "equals", "&": "and", "#": "hash", "%": "percent", "+": "plus", "@": "at", ":": "colon",
}  # fmt: skip

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?<![\w.+-])[A-Za-z0-9._%+-]{{1,64}}@(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}}\b")
_URL = re.compile(r"\b(?:https?|ftps?|wss?|file)://[^\s<>\"'“”()\[\]{}]{1,2000}", re.IGNORECASE)
_WWW = re.compile(rf"\bwww\.(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}}(?:/[^\s<>\"'“”()\[\]{{}}]{{0,2000}})?", re.IGNORECASE)
_BARE = re.compile(
    rf"(?<![\w.@/-])(?:{_LABEL}\.){{1,8}}(?:com|org|net|edu|gov|io|uk|de|fr|info|biz|us|ca|au|eu|tv|me|ai|app|dev|py|js)"
    r"\b(?!\.\w)(?:/[^\s<>\"'“”()\[\]{}]{0,2000})?"
)
_HANDLE = re.compile(r"(?<![\w.@/])@([A-Za-z_]\w{0,60})")
_NUMBER = re.compile(r"(?<![\w&/#])#(?=\d)")
_HASHTAG = re.compile(r"(?<![\w&/#])#([A-Za-z_]\w{0,100})")
_PATH = re.compile(r"(?<![\w/.:])(?:~|\.{1,2})?(?:/[\w.-]{1,60}){2,20}/?(?![\w/])")
_PIECE = re.compile(r"[A-Za-z]+|\d+|[^\w\s]|_")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def read_links(text: str) -> str:
    """ "john@example.com", "https://example.com/a", "@name", "#tag" and "/usr/bin" in words."""
    text = _EMAIL.sub(lambda found: _spoken(found[0]), text)
    for address in (_URL, _WWW, _BARE):
        text = address.sub(_address, text)
    text = _HANDLE.sub(lambda found: f"at {_camel(found[1])}", text)
    text = _NUMBER.sub("number ", text)
    text = _HASHTAG.sub(lambda found: f"hashtag {_camel(found[1])}", text)
    return _PATH.sub(lambda found: _spoken(found[0]), text)


def _address(found: re.Match[str]) -> str:
    """Without what a person leaves out: the scheme, "www.", and the slash at the end; with the sentence's own end."""
    whole = found[0]
    kept = whole.rstrip(".,;:!?")
    shown = re.sub(r"^(?:\w+://)?(?:www\.)?", "", kept, flags=re.IGNORECASE).rstrip("/")
    return _spoken(shown) + whole[len(kept) :]


def _spoken(address: str) -> str:
    host_ends = address.find("/") if "/" in address else len(address)
    ending = address[:host_ends].rfind(".") + 1
    words: list[str] = []
    for found in _PIECE.finditer(address):
        piece = found[0]
        if piece.isdigit():
            words.append(digits(piece))
        elif not piece.isalpha():
            words.append(SIGNS.get(piece, ""))
        elif (found.start() == ending and piece.lower() not in AS_WORDS and len(piece) < 4) or len(piece) == 1:
            words.append(f"·{piece.upper()}")
        else:
            words.append(_camel(piece))
    return " ".join(filter(None, words))


def _camel(name: str) -> str:
    return _CAMEL.sub(" ", name.replace("_", " ")).strip()
