"""Sentences: where a text is cut so that its beginning can be spoken while the rest waits. Stage: task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ortmesh_speech.aloud.abbreviations import GO_ON, MONTHS, NUMBERED, STREETS, TITLES

LONGEST = 600
"""Characters, about 40 s of speech: what goes on for longer without an end is cut at a clause or between words."""
FULL_LINE = 50
"""A line that long may have been wrapped: its end need not be a sentence's."""

_BREAK = re.compile(r"\n[^\S\n]*(?:\n\s*)?")
_END = re.compile(r"""[.!?…]["”’')\]»]*(?=\s)|[。！？؟।]["”’」』]*""")
_CLAUSE = re.compile(r"[,;:—)](?=\s)")
_INITIAL = re.compile(r"\s*[A-Z]\.")
_OPENING = "\"“‘'([«—-•* "


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of the text that is spoken at once."""

    text: str
    """As it was given, without the space around it."""
    ends_paragraph: bool
    """True when a longer pause follows."""


def sentences(text: str) -> Iterator[Sentence]:
    """The text's sentences, in its order; everything but the space between them is in one of them."""
    for paragraph in _paragraphs(text):
        found = [piece for sentence in _split(paragraph) for piece in _not_too_long(sentence)]
        for number, sentence in enumerate(found, 1):
            yield Sentence(sentence, ends_paragraph=number == len(found))


def _paragraphs(text: str) -> Iterator[str]:
    """What stands between empty lines; headings and items of lists too, which are single lines without a period."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2029", "\n\n").replace("\u2028", "\n")
    start = line = 0
    for found in _BREAK.finditer(text):
        if "\n" in found[0][1:] or not _wrapped(
            text[line : found.start()].strip(), text[found.end() : found.end() + 80].lstrip()
        ):
            if paragraph := text[start : found.start()].strip():
                yield paragraph
            start = found.end()
        line = found.end()
    if paragraph := text[start:].strip():
        yield paragraph


def _wrapped(line: str, following: str) -> bool:
    """True when a line goes on in the next one."""
    return following[:1].islower() or (len(line) >= FULL_LINE and following[:1].isalnum())


def _split(paragraph: str) -> Iterator[str]:
    start = 0
    for found in _END.finditer(paragraph):
        if _ends(paragraph, start, found):
            yield paragraph[start : found.end()].strip()
            start = found.end()
    if rest := paragraph[start:].strip():
        yield rest


def _ends(paragraph: str, start: int, found: re.Match[str]) -> bool:
    """False for the period of "Dr. Smith", "J. K. Rowling", "No. 5" and for what goes on in lower case."""
    following = paragraph[found.end() : found.end() + 80].lstrip().lstrip(_OPENING)[:1]
    if following.islower():
        return False
    if found[0][0] != ".":
        return True
    earlier, word = ["", "", *paragraph[max(start, found.start() - 40) : found.start()].split()][-2:]
    word = word.lstrip(_OPENING)
    if len(word) == 1 and word.isupper():
        return word == "I" or not (_INITIAL.match(paragraph, found.end()) or _is_initial(earlier))
    if following.isdigit() and (word.lower() in NUMBERED or word in MONTHS):
        return False
    if word in TITLES:
        return word in STREETS and earlier[:1].isupper()
    return word.lower() not in GO_ON


def _is_initial(earlier: str) -> bool:
    """True for the J in "by J. Smith" or "John J. Smith", not for the B in "plan B."."""
    return (
        not earlier or earlier[:1].isupper() or earlier in ("by", "and", "of", "with", "to", "from", "for", "as", "&")
    )


def _not_too_long(sentence: str) -> Iterator[str]:
    while len(sentence) > LONGEST:
        clauses = [found.end() for found in _CLAUSE.finditer(sentence, LONGEST // 3, LONGEST)]
        at = clauses[-1] if clauses else sentence.rfind(" ", LONGEST // 3, LONGEST)
        at = at if at > 0 else LONGEST
        yield sentence[:at].strip()
        sentence = sentence[at:].strip()
    if sentence:
        yield sentence
