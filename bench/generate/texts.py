"""Texts: what came of the jobs, and the figures of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bench.generate.jobs import Job


@dataclass(slots=True)
class Text:
    """One text. Times are seconds of the contestant's own clock."""

    sent: float
    began: float
    """When its prompt's turn came; where all run side by side, when it was sent."""
    at: list[float] = field(default_factory=list)
    """When each of its tokens came; of a service, each of its pieces."""
    tokens: list[int] = field(default_factory=list)
    """Empty where only the text is told."""
    text: str = ""
    count: int = 0
    """How many tokens it has."""

    @property
    def first_seconds(self) -> float:
        """From its being sent to its first token."""
        return self.at[0] - self.sent

    @property
    def gap_seconds(self) -> float:
        """The longest time between two tokens; 0 when there is one alone."""
        return max((later - earlier for earlier, later in pairwise(self.at)), default=0.0)


@dataclass(frozen=True, slots=True)
class Wave:
    """The texts of some jobs, asked for together."""

    jobs: Sequence[Job]
    texts: Sequence[Text]
    """In the order of the jobs."""
    seconds: float

    @classmethod
    def of(cls, jobs: Sequence[Job], told: dict[str, Any]) -> Wave:
        """What a process told. RuntimeError when a text has no token: then nothing of it can be measured."""
        texts = [Text(**each, count=len(each["tokens"])) for each in told["texts"]]
        return checked(cls(jobs, texts, told["seconds"]))

    @property
    def streams(self) -> list[Text]:
        """The texts of the streams, without those that came by themselves."""
        return [text for job, text in zip(self.jobs, self.texts, strict=True) if not job.after]

    @property
    def came(self) -> list[Text]:
        """Those that came by themselves."""
        return [text for job, text in zip(self.jobs, self.texts, strict=True) if job.after]

    @property
    def rate(self) -> float:
        """Tokens of the streams' texts a second, from the first one's being sent to the last one's end."""
        texts = self.streams
        return sum(text.count for text in texts) / (max(text.at[-1] for text in texts) - min(t.sent for t in texts))

    @property
    def decode_rate(self) -> float:
        """Tokens a second while no prompt was read: what came between a prompt's turn and its first token, and that
        time, are left out."""
        reading = merged((text.began, text.at[0]) for text in self.texts)
        begin, end = min(text.sent for text in self.texts), max(text.at[-1] for text in self.texts)
        took = end - begin - sum(to - since for since, to in reading)
        came = sum(
            text.count / len(text.at)
            for text in self.texts
            for at in text.at
            if not any(since <= at <= to for since, to in reading)
        )
        return came / took if came and took > 0 else 0.0


def checked(wave: Wave) -> Wave:
    """RuntimeError when a text has no token."""
    empty = [job for job, text in zip(wave.jobs, wave.texts, strict=True) if not text.at]
    if empty:
        raise RuntimeError(f"nothing came of {len(empty)} of {len(wave.jobs)} prompts: {empty[0].prompt[:80]!r}")
    return wave


def merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans that do not overlap, of those that may."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def percentile(values: Iterable[float], percent: float) -> float:
    """The value below which so many percent lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
