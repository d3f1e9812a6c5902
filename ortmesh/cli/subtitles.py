"""Subtitles: recognized speech as SubRip (SRT) and WebVTT. Stage: command line.

Two lines of 42 characters each and 7 s at most, as broadcasters and streaming services ask for; cut between words, at
their own times.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ortmesh.speech.v1.speech_pb2 import Segment

LINE_CHARACTERS = 42
LINES = 2
MAX_SECONDS = 7.0
MIN_SECONDS = 1.0
"""Nobody reads a word in less; where the next cue comes sooner, until then."""
PAUSE_SECONDS = 1.5
"""A longer silence ends a cue."""
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")


@dataclass(frozen=True, slots=True)
class Timed:
    """A piece of text and when it is said, in seconds."""

    text: str
    """With what stands before it: a space, or nothing."""
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown at a time."""

    lines: tuple[str, ...]
    start: float
    end: float
    speaker: str = ""


def srt(segments: Iterable[Segment]) -> str:
    """The segments as SubRip; where the speaker changes, the line says who it is."""
    blocks: list[str] = []
    for number, cue in enumerate(cues(segments, named=True), 1):
        times = f"{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}"
        text = "\n".join(cue.lines).replace("-->", "->")
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def vtt(segments: Iterable[Segment]) -> str:
    """The segments as WebVTT (w3.org/TR/webvtt1); speakers are voices."""
    blocks = ["WEBVTT\n"]
    for cue in cues(segments):
        times = f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}"
        voice = f"<v {_escaped(speaker_name(cue.speaker))}>" if cue.speaker else ""
        text = "\n".join(map(_escaped, cue.lines))
        blocks.append(f"{times}\n{voice}{text}\n")
    return "\n".join(blocks)


def speaker_name(label: str) -> str:
    """How a speaker is called."""
    return f"Speaker {label}"


def cues(segments: Iterable[Segment], *, named: bool = False) -> list[Cue]:
    """What is shown one after another; with `named`, a cue at which the speaker changes begins with who it is."""
    made: list[Cue] = []
    for segment in segments:
        words = timed_words(segment)
        if not words:
            continue
        if named and segment.speaker and segment.speaker != (made[-1].speaker if made else ""):
            words[0] = replace(words[0], text=f"{speaker_name(segment.speaker)}: {words[0].text.lstrip()}")
        for group in _groups(words):
            lines = tuple(_wrapped(group))
            made.append(Cue(lines, group[0].start, group[-1].end, segment.speaker))
    return [_long_enough(cue, made[place + 1].start if made[place + 1 :] else None) for place, cue in enumerate(made)]


def timed_words(segment: Segment) -> list[Timed]:
    """The words of a segment; where it has none, its transcript's, each as long as its share of the characters."""
    found: list[Timed] = []
    at = 0
    for word in segment.words:
        place = segment.transcript.find(word.text, at)
        text = segment.transcript[at : place + len(word.text)] if place >= 0 else f" {word.text}"
        at = place + len(word.text) if place >= 0 else at
        found.append(Timed(text, word.start.ToNanoseconds() / 1e9, word.end.ToNanoseconds() / 1e9))
    if not found:
        start, end = segment.start.ToNanoseconds() / 1e9, segment.end.ToNanoseconds() / 1e9
        found = _spread([f" {word}" for word in segment.transcript.split()], start, end)
    return [piece for word in found for piece in _broken(word)]


def _broken(word: Timed) -> list[Timed]:
    """A word that is longer than a line, in pieces."""
    text = word.text.strip()
    if len(text) <= LINE_CHARACTERS:
        return [word]
    pieces = [text[first : first + LINE_CHARACTERS] for first in range(0, len(text), LINE_CHARACTERS)]
    return _spread([f" {piece}" for piece in pieces], word.start, word.end)


def _spread(texts: Sequence[str], start: float, end: float) -> list[Timed]:
    """Texts over a time, by their characters."""
    each = (end - start) / max(sum(map(len, texts)), 1)
    spread: list[Timed] = []
    for text in texts:
        spread.append(Timed(text, start, start + len(text) * each))
        start += len(text) * each
    return spread


def _groups(words: Sequence[Timed]) -> Iterator[list[Timed]]:
    """The words of each cue: as many as fit, but a sentence's end ends one that fills more than a line."""
    group: list[Timed] = []
    for word in words:
        if group and not _goes_on(group, word):
            yield group
            group = []
        group.append(word)
    yield group


def _goes_on(group: Sequence[Timed], word: Timed) -> bool:
    if word.start - group[-1].end > PAUSE_SECONDS or word.end - group[0].start > MAX_SECONDS:
        return False
    if len(_wrapped(group)) > 1 and group[-1].text.endswith(SENTENCE_ENDS):
        return False
    return len(_wrapped([*group, word])) <= LINES


def _wrapped(group: Sequence[Timed]) -> list[str]:
    return textwrap.wrap("".join(word.text for word in group).strip(), LINE_CHARACTERS)


def _long_enough(cue: Cue, following: float | None) -> Cue:
    """The cue, shown until it can be read or the next one comes, and for a moment at least."""
    wanted = max(cue.end, cue.start + MIN_SECONDS)
    end = wanted if following is None else max(min(wanted, following), min(cue.end, following))
    return replace(cue, end=max(end, cue.start + 0.001))


def _clock(seconds: float, point: str) -> str:
    """Hours:minutes:seconds and milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
