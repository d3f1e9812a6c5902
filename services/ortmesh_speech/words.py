"""Words: from a recognizer's tokens and their times to words and when each is said. Stage: task."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

SECONDS_PER_FRAME = 0.02
"""Of Whisper's encoder."""
UNSPACED = frozenset({"ja", "zh", "yue", "th", "lo", "my", "km", "bo"})
"""Languages that put no space between words: each of their characters counts as one."""
LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, and so the most tokens that one is spread over."""
BROKEN = "\N{REPLACEMENT CHARACTER}"
"""How a tokenizer writes bytes that are no whole character."""
PAUSE_SECONDS = 0.3
"""Of silence, which no word goes across."""
SHORTEST_SECONDS = 0.2
"""Of a word for which the decoder's attention left no time: as much of the silence before it, where there is some."""
EDGE_SECONDS = 0.1
"""So far may a word reach into the silence beside it: a detector notices soft sounds late."""

Stretch = tuple[float, float]
"""Seconds from the recording's start, from the first on to the second."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and when it is said."""

    text: str
    """With the punctuation that follows it."""
    start: float
    """Seconds from the recording's start."""
    end: float
    logprobs: tuple[float, ...]
    """Natural log-probabilities of its tokens."""

    @property
    def confidence(self) -> float:
        """The mean probability of its tokens."""
        return confidence(self.logprobs)


def confidence(logprobs: Sequence[float]) -> float:
    """The geometric mean of probabilities that are given as logarithms."""
    return min(math.exp(sum(logprobs) / len(logprobs)), 1.0) if logprobs else 0.0


def words_of(
    tokens: Sequence[int],
    frames: Sequence[tuple[int, int]],
    logprobs: Sequence[float],
    tokenizer: Tokenizer,
    *,
    offset: float,
    speech: Sequence[Stretch],
    language: str,
) -> list[TimedWord]:
    """The words of a window's tokens, in their order; they do not overlap and lie within its speech.

    `frames` says for each token the first frame in which it is heard and the one after the last; the window begins at
    `offset` seconds of the recording, in which `speech` lies.
    """
    pieces = list(_pieces(tokens, tokenizer))
    sounding = [_sounds(text) for text, count in pieces for _ in range(count)]
    groups = _with_punctuation(pieces if language in UNSPACED else list(_between_spaces(pieces)))
    words: list[TimedWord] = []
    first = 0
    for text, count in groups:
        last = first + count
        start, end = _span(frames[first:last], sounding[first:last])
        start, end = offset + start * SECONDS_PER_FRAME, offset + end * SECONDS_PER_FRAME
        words.append(TimedWord(text.strip(), start, end, tuple(logprobs[first:last])))
        first = last
    return _in_order([_within_speech(word, utterances(speech)) for word in words], speech[0][0], speech[-1][1])


def _span(frames: Sequence[tuple[int, int]], sounding: Sequence[bool]) -> tuple[float, float]:
    """From the first frame to the last in which any of the tokens is heard; nothing is heard of punctuation."""
    spoken = [span for span, sounds in zip(frames, sounding, strict=True) if sounds] or frames
    heard = [span for span in spoken if span[1] > span[0]] or spoken
    return min(first for first, _ in heard), max(last for _, last in heard)


def _pieces(tokens: Sequence[int], tokenizer: Tokenizer) -> Iterator[tuple[str, int]]:
    """(text, how many tokens it is spread over): the least that are whole characters."""
    held: list[int] = []
    for token in tokens:
        held.append(token)
        text = tokenizer.decode(held)
        if BROKEN not in text or len(held) >= LONGEST_CHARACTER:
            yield text, len(held)
            held = []
    if held:
        yield tokenizer.decode(held), len(held)


def _between_spaces(pieces: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """What stands between spaces."""
    text, count = "", 0
    for piece, tokens in pieces:
        if count and piece.startswith(" ") and text.strip():
            yield text, count
            text, count = "", 0
        text, count = text + piece, count + tokens
    if count:
        yield text, count


def _with_punctuation(groups: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Groups without a letter or digit go to the word before; at the beginning to the one that follows."""
    joined: list[tuple[str, int]] = []
    for text, count in groups:
        before = joined[-1] if joined else None
        if before is not None and not (_sounds(text) and _sounds(before[0])):
            joined[-1] = (before[0] + text, before[1] + count)
        else:
            joined.append((text, count))
    return joined


def _sounds(text: str) -> bool:
    return re.search(r"\w", text) is not None


def utterances(speech: Sequence[Stretch]) -> list[Stretch]:
    """Stretches of speech, at least one, those joined between which the pause is too short to part words."""
    joined = [speech[0]]
    for start, end in speech[1:]:
        if start - joined[-1][1] < PAUSE_SECONDS:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _within_speech(word: TimedWord, utterances: Sequence[Stretch]) -> TimedWord:
    """The word without the pause before or behind it, which a decoder's attention gives to one of both neighbours."""
    overlaps = [min(word.end, end) - max(word.start, start) for start, end in utterances]
    best = max(range(len(overlaps)), key=overlaps.__getitem__)
    if overlaps[best] <= 0:
        return word
    start, end = utterances[best]
    return replace(word, start=max(word.start, start - EDGE_SECONDS), end=min(word.end, end + EDGE_SECONDS))


def _in_order(words: list[TimedWord], earliest: float, latest: float) -> list[TimedWord]:
    """The words, none before the end of another or outside of the window's speech."""
    placed: list[TimedWord] = []
    for word in words:
        start = word.start if word.end > word.start else word.start - SHORTEST_SECONDS
        start = min(max(start, earliest), latest)
        earliest = max(min(word.end, latest), start)
        placed.append(replace(word, start=start, end=earliest))
    return placed
