"""One window on its way through Whisper: what is known of it, and whether it must be decoded again. Stage: executor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.serving.executor.loop import is_wanted
from ortmesh.serving.executor.whisper_facts import Facts
from ortmesh.serving.executor.whisper_limits import HIGHEST_COMPRESSION, LOWEST_MEAN_LOGPROB, SURE_OF_SILENCE
from ortmesh.serving.executor.whisper_request import FREE, Wish
from ortmesh.serving.executor.whisper_search import Hypothesis
from ortmesh.serving.types import Array, Item

SILENT_CELL = -1.5
"""Of a spectrogram where there is no power at all, unless the window's dynamic range ends above it."""
DYNAMIC_RANGE = 2.0
"""Of a spectrogram's cells: 8 powers of ten over 4."""


class Result(NamedTuple):
    """What was found in a window."""

    hypothesis: Hypothesis
    no_speech: float
    """Probability that nothing is said."""
    compression: float
    """How many times zlib shrinks the text."""
    others: Sequence[Hypothesis] = ()
    """Less probable texts, best first."""

    @property
    def good(self) -> bool:
        """False when the window should be decoded again."""
        if self.hypothesis.mean_logprob < LOWEST_MEAN_LOGPROB:
            return self.no_speech > SURE_OF_SILENCE
        return self.compression <= HIGHEST_COMPRESSION

    @property
    def rank(self) -> tuple[bool, float]:
        """Of two bad results the one that does not repeat itself is better, then the more probable one."""
        return self.compression <= HIGHEST_COMPRESSION, self.hypothesis.mean_logprob


class Window:
    """One row of an item: a spectrogram [1, mels, frames] and what is wanted of it."""

    def __init__(self, item: Item, mel: Array, wish: Wish) -> None:
        self.item = item
        self.mel = mel
        self.wish = wish
        self.frames = int(mel.shape[2])
        """As many as it is decoded with."""
        self.language = wish.language
        """Index of the language, once it is known."""
        self.languages: Array = np.zeros(0, np.float32)
        """Log-probabilities of all languages."""
        self.result: Result | None = None
        """The best so far, without text where only the language is asked for; None before the first attempt."""
        self.token_frames: Array = np.zeros((0, 2), np.int64)
        """When the result's tokens are said."""
        self.settled = False
        """True when it is not decoded again."""
        self.siblings = [self]
        """All windows of the item, by row."""

    @property
    def wanted(self) -> bool:
        """False when nobody waits for it any more; then its item has ended."""
        return is_wanted(self.item)

    def hear(self, languages: Array) -> None:
        """Log-probabilities of the model's languages; none where it knows one only."""
        self.languages = languages if len(languages) else np.zeros(1, np.float32)
        if self.wish.language == FREE:
            self.language = int(self.languages.argmax())

    def offer(self, result: Result) -> None:
        """What an attempt found: a good result settles the window, of bad ones the better is kept."""
        if self.result is None or result.good or result.rank > self.result.rank:
            self.result = result
        self.settled = result.good

    def padded(self) -> Array:
        """The spectrogram [1, mels, frames], silence added as if it had followed the samples.

        Made when it is needed: thousands of windows at 30 s are gigabytes.
        """
        silent = max(SILENT_CELL, float(self.mel.max()) - DYNAMIC_RANGE)
        missing = self.frames - self.mel.shape[2]
        return np.pad(self.mel, ((0, 0), (0, 0), (0, missing)), constant_values=silent) if missing else self.mel


def must_be_mel(mel: Array, facts: Facts) -> None:
    """BadInput when a spectrogram is not what Whisper takes."""
    if mel.ndim != 3 or mel.shape[1] != facts.mels or mel.shape[2] % 2 or not 2 <= mel.shape[2] <= facts.max_frames:
        expected = f"[rows, {facts.mels}, frames], frames even and at most {facts.max_frames}"
        raise BadInput("mel", f"has the shape {list(mel.shape)}: expected {expected}")


def windows_of(item: Item, wishes: Sequence[Wish]) -> list[Window]:
    """One for each row of an item."""
    mel = item.tensors["mel"]
    windows = [Window(item, mel[row : row + 1], wish) for row, wish in enumerate(wishes)]
    for window in windows:
        window.siblings = windows
    return windows


def groups(windows: Sequence[Window], limit: int) -> Iterator[list[Window]]:
    """Windows that are decoded side by side: of equal frames, beams and lengths of earlier text, at most `limit`."""

    def kind(window: Window) -> tuple[bool, int, int, int]:
        return window.wish.text, window.frames, window.wish.beams, len(window.wish.prompt)

    for _, group in groupby(sorted(windows, key=kind), key=kind):
        while some := list(islice(group, limit)):
            yield some
