"""TextMeter: where an engine reports the texts that it generates: part of a version's `Meter`. Stage: executor."""

from __future__ import annotations

from typing import Protocol


class TextMeter(Protocol):
    """Metrics of the texts of one model version. Thread-safe, cheap: a microsecond a call."""

    def prompt(self, *, computed: int = 0, cached: int = 0) -> None:
        """So many tokens of a prompt were computed, so many were there already: of ended texts, or of one that is in
        progress and begins alike."""

    def generated(self, tokens: int) -> None:
        """A step gave so many tokens of all texts."""

    def first(self, seconds: float) -> None:
        """A text's first token came so long after the text was asked for."""

    def ended(self, reason: str, token_seconds: float | None) -> None:
        """A text ended: `stop` or `length`, or before that `cancelled`, `expired` or by an `error`; its tokens after
        the first took so many seconds each, None where that says nothing."""

    def held(self, texts: int, *, reserved: int, kept: int, budget: int) -> None:
        """So many texts are in progress, which may have `reserved` tokens of the `budget`; `kept` ones of ended texts
        are forgotten when theirs are needed."""


class NoTextMeter:
    """A meter that forgets: for tests and tools."""

    def prompt(self, *, computed: int = 0, cached: int = 0) -> None:
        """Forgets."""

    def generated(self, tokens: int) -> None:
        """Forgets."""

    def first(self, seconds: float) -> None:
        """Forgets."""

    def ended(self, reason: str, token_seconds: float | None) -> None:
        """Forgets."""

    def held(self, texts: int, *, reserved: int, kept: int, budget: int) -> None:
        """Forgets."""
