"""Jobs: the texts that all contestants are asked for, drawn with a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tokenizers import Tokenizer

PEOPLE = ("baker", "pilot", "nurse", "fisher", "painter", "farmer", "teacher", "sailor", "singer", "tailor", "miner")
PLACES = ("harbour", "mountain", "desert", "island", "forest", "castle", "village", "market", "river", "bridge", "mill")
THINGS = ("lamp", "clock", "boat", "letter", "horse", "garden", "storm", "map", "violin", "key", "winter", "kite")
FILLING = ("and", "the", "of", "in", "was", "by", "with", "old", "new", "long", "red", "small", "found", "kept", "saw")
USER, ASSISTANT, END = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"
"""How SmolLM2, and whoever has ChatML's marks, parts a conversation. No system prompt: what prompts have in common is
kept by some contestants and not by others, and conversations have a part of their own."""


@dataclass(frozen=True, slots=True)
class Job:
    """One text."""

    prompt: str
    ids: tuple[int, ...]
    """The same as tokens."""
    max_tokens: int
    after: float = 0.0
    """Seconds after which it comes by itself; 0: when one of the streams is free."""

    def line(self) -> dict[str, Any]:
        """For a process that reads JSON."""
        return asdict(self)


class Drawn:
    """Jobs by a seed: prompts that share no beginning of 16 tokens."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(seed)

    def stories(self, count: int, max_tokens: int) -> list[Job]:
        """Short prompts, of some forty tokens, for long texts."""
        return [self.job(self._story(), max_tokens) for _ in range(count)]

    def long(self, tokens: int, max_tokens: int = 1, after: float = 0.0) -> Job:
        """A prompt of so many tokens, or one or two more."""
        end = f". What of this is true?{END}{ASSISTANT}"
        words = [USER + self._random.choice(THINGS)]
        while self._count("".join(words) + end) < tokens:
            missing = tokens - self._count("".join(words) + end)
            words += [" " + self._word() for _ in range(max(1, missing // 8))]
        return replace(self.job("".join(words) + end, max_tokens), after=after)

    def conversation(self, turns: int, words: int) -> list[str]:
        """What is said up to each turn's answer: of each side so many words a turn."""
        said, prompts = "", []
        for _ in range(turns):
            said += f"{USER}{self.words(words)}{END}{ASSISTANT}"
            prompts.append(said)
            said += f"{self.words(words)}{END}"
        return prompts

    def job(self, prompt: str, max_tokens: int) -> Job:
        """A prompt with its tokens."""
        return Job(prompt, tuple(self._tokenizer.encode(prompt, add_special_tokens=False).ids), max_tokens)

    def _story(self) -> str:
        person, other = self._random.sample(PEOPLE, 2)
        place, thing = self._random.choice(PLACES), self._random.choice(THINGS)
        year = self._random.randrange(1100, 2000)
        return (
            f"{USER}{year}: a {person}, a {other}, a {thing} and a {place}. Write a long story about them, with all "
            f"that happened in that year.{END}{ASSISTANT}"
        )

    def words(self, count: int) -> str:
        """So many, drawn one by one."""
        return " ".join(self._word() for _ in range(count))

    def _word(self) -> str:
        return self._random.choice(self._random.choice((PEOPLE, PLACES, THINGS, FILLING)))

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def every_second(drawn: Drawn, count: int, tokens: int) -> Iterator[Job]:
    """Long prompts that come one a second."""
    return (drawn.long(tokens, after=1.0 + second) for second in range(count))


def by_stream(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """(those of the streams, those that come by themselves, in their order)."""
    return [job for job in jobs if not job.after], sorted((job for job in jobs if job.after), key=lambda job: job.after)
