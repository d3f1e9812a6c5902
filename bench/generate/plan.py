"""Plan: how much of everything is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Of one run."""

    rounds: int
    """In each everyone has a turn with the same prompts."""
    streams: tuple[int, ...] = (1, 4, 16)
    texts: tuple[int, ...] = (4, 8, 32)
    """For so many streams."""
    tokens: int = 64
    """Of a text."""
    busy_streams: tuple[int, ...] = (1, 4, 16)
    """While long prompts come."""
    busy_texts: tuple[int, ...] = (8, 16, 32)
    """For so many streams: as many as last until the last long prompt has come."""
    busy_tokens: int = 128
    came: int = 4
    """Long prompts, one a second."""
    long: int = 1000
    """Tokens of a long prompt."""
    prompts: int = 3
    """Long ones, alone."""
    turns: int = 10
    turn_words: int = 50
    """Of each side, in a turn of the conversation."""
    together: tuple[int, ...] = (2, 4, 8, 16)
    """Texts at once that are compared with themselves alone."""
    compared: int = 16
    compared_tokens: int = 48
    full_streams: int = 16
    full_tokens: int = 1024
    """Of each of them: as many as the card's budget has for each slot."""
    rest_seconds: float = 320.0
    """Longer than the engine keeps ended texts when nothing comes."""
    mixed_minutes: float = 60.0
    mixed_rest_seconds: float = 15.0


FULL = Plan(rounds=3)
QUICK = Plan(
    rounds=1,
    texts=(2, 4, 16),
    tokens=32,
    busy_streams=(4,),
    busy_texts=(16,),
    busy_tokens=32,
    came=2,
    prompts=1,
    turns=10,
    turn_words=20,
    together=(4,),
    compared=4,
    compared_tokens=24,
    full_tokens=128,
    rest_seconds=3.0,
    mixed_minutes=1.0,
    mixed_rest_seconds=1.0,
)
