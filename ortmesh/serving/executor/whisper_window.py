"""One window on its way through Whisper: what is known of it between attempts, and when its item ends. Stage: executor."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from ortmesh.errors import BadInput, Cancelled, Expired
from ortmesh.serving.executor.whisper_decoder import Cross, Facts, Graphs
from ortmesh.serving.executor.whisper_search import BeamSearch, Hypothesis, Sampling, Search
from ortmesh.serving.types import Array, Item

MAX_BEAMS = 8
DRAWS = 5
"""Texts that are drawn at a temperature."""
SILENT_CELL = -1.5
"""Of a spectrogram where there is no power at all, unless the window's dynamic range ends above it."""
DYNAMIC_RANGE = 2.0
"""Of a spectrogram's cells: 8 powers of ten over 4."""
LOWEST_MEAN_LOGPROB = -1.0
HIGHEST_COMPRESSION = 2.4
"""A text that zlib shrinks more than this repeats itself without end."""
SURE_OF_SILENCE = 0.6
"""Probability of no speech from which an improbable text is left at that: nothing is said."""


class Attempt(NamedTuple):
    """One way of decoding a window."""

    full_window: bool
    """Padded with silence to the 30 s that Whisper was trained with."""
    temperature: float
    """0 for beam search."""


class Result(NamedTuple):
    """What an attempt found."""

    hypothesis: Hypothesis
    no_speech: float
    """Probability that nothing is said."""
    compression: float
    """How many times zlib shrinks the text."""

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
    """One row of an item: a spectrogram and how it is to be decoded."""

    def __init__(self, item: Item, mel: Array, beams: int) -> None:
        self.item = item
        self.beams = beams
        self.result: Result | None = None
        """The best so far."""
        self.settled = False
        """True when no attempt follows."""
        self.siblings = [self]
        """All windows of the item, by row."""
        self._mel = mel
        self._cross: Cross | None = None

    @property
    def wanted(self) -> bool:
        """False when nobody waits for it any more; then its item has ended."""
        if self.item.cancelled:
            self.item.fail(Cancelled("the caller left"))
        elif time.monotonic() > self.item.deadline:
            self.item.fail(Expired("the deadline passed while the audio was decoded"))
        return not self.item.done

    def frames(self, attempt: Attempt, facts: Facts) -> int:
        """How long its spectrogram is in an attempt."""
        return facts.max_frames if attempt.full_window else int(self._mel.shape[2])

    def listen(self, attempt: Attempt, graphs: Graphs) -> Cross:
        """What the decoder attends to; encoded once for all attempts of one length."""
        frames = self.frames(attempt, graphs.facts)
        if self._cross is None or self._cross.values.shape[3] != frames // 2:
            self._cross = graphs.encode(_padded(self._mel, frames))
        return self._cross

    def search(self, attempt: Attempt, end_of_text: int) -> Search:
        """What grows its text. Draws depend on the spectrogram only: the same audio gives the same text."""
        if attempt.temperature == 0:
            return BeamSearch(self.beams, end_of_text)
        return Sampling(DRAWS, end_of_text, attempt.temperature, seed=zlib.crc32(self._mel.tobytes()))

    def offer(self, result: Result) -> None:
        """One attempt's result: settles the window when it is good, else the better one is remembered."""
        if result.good or self.result is None or result.rank > self.result.rank:
            self.result = result
        if result.good:
            self.settle()

    def settle(self) -> None:
        """No attempt follows."""
        self.settled = True
        self._cross = None


def windows_of(item: Item, facts: Facts) -> list[Window]:
    """One for each row of an item. BadInput when its tensors are not what Whisper takes."""
    mel, beams = item.tensors["mel"], item.tensors["beam_width"]
    if mel.ndim != 3 or mel.shape[1] != facts.mels or mel.shape[2] % 2 or not 2 <= mel.shape[2] <= facts.max_frames:
        expected = f"[rows, {facts.mels}, frames], frames even and at most {facts.max_frames}"
        raise BadInput("mel", f"has the shape {list(mel.shape)}: expected {expected}")
    if beams.shape != mel.shape[:1]:
        raise BadInput("beam_width", f"has the shape {list(beams.shape)}: expected one number a row of mel")
    if not ((beams >= 1) & (beams <= MAX_BEAMS)).all():
        raise BadInput("beam_width", f"must be 1 to {MAX_BEAMS}")
    windows = [Window(item, mel[row : row + 1], int(beams[row])) for row in range(len(mel))]
    for window in windows:
        window.siblings = windows
    return windows


def groups(windows: Sequence[Window], attempt: Attempt, facts: Facts) -> Iterator[list[Window]]:
    """Windows that can be decoded side by side: of equal frames, following equally many hypotheses."""

    def kind(window: Window) -> tuple[int, int]:
        return window.frames(attempt, facts), window.beams if attempt.temperature == 0 else DRAWS

    for _, group in groupby(sorted(windows, key=kind), key=kind):
        yield list(group)


def _padded(mel: Array, frames: int) -> Array:
    """The spectrogram as if silence had followed the samples."""
    missing = frames - mel.shape[2]
    if not missing:
        return mel
    silent = max(SILENT_CELL, float(mel.max()) - DYNAMIC_RANGE)
    return np.pad(mel, ((0, 0), (0, 0), (0, missing)), constant_values=silent)
