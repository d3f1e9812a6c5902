"""When each token is said: the decoder's attention to the audio, and where the audio is loud: pure. Stage: executor.

As in github.com/openai/whisper (`whisper/timing.py`): the heads that follow the speech, normalized, smoothed by a
median, and the path of most attention through tokens and frames. What differs: every token has a frame of its own, and
pauses are no part of any token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ortmesh.serving.types import Array

MEDIAN = 7
"""Frames that a head's attention is smoothed over, as Whisper does."""
LATE = 5
"""Frames after a token's beginning at which most attention turns to it: 0.115 s in the mean, on synthesized speech with
known onsets."""
PAUSE = 8
"""Quiet frames (160 ms) that separate words: gaps within words (stops) are shorter."""
SHARE = 0.35
"""Of the way from the background to the loud parts: from which level a frame is heard."""
FADING = 0.12
"""The same where a sound begins or fades away."""
FADE = 10
"""Frames that a beginning or an end may last."""
SHORTEST = 3
"""Frames: what is heard for a shorter time is a click."""


def frames_of(attention: Array, spoken: Sequence[bool], heard: Array) -> Array:
    """(first frame, frame after the last) of each token: int64 [tokens, 2].

    `attention` [heads, tokens + 1, frames]: probabilities; row i is what was attended to when token i was chosen, the
    last row when the text ended. `spoken` [tokens]: False for punctuation, which has no length: what was attended to
    meanwhile belongs to the word before. `heard` [frames]: True where the audio is loud.
    """
    tokens, frames = attention.shape[1] - 1, attention.shape[2]
    if tokens + 1 > frames:  # of a few frames: too short for words
        edges = np.linspace(0, frames, tokens + 1).astype(np.int64)
        return np.stack([edges[:-1], edges[1:]], axis=1)
    weights = _median(_normalized(attention)).mean(axis=0)
    begins = np.maximum(_path(weights) - LATE, 0)
    begins[-1] = frames  # the end of text is attended to before the last word is over
    for token in reversed(range(tokens)):
        if not spoken[token]:
            begins[token] = begins[token + 1]
    runs, looks = _runs(heard), attention.mean(axis=0)
    found: list[tuple[int, int]] = []
    for token in range(tokens):
        part = _heard_part(int(begins[token]), int(begins[token + 1]), looks[token], runs) if spoken[token] else None
        nothing = found[-1][1] if found else int(begins[token])
        found.append(part or (nothing, nothing))
    return np.array(found, np.int64).reshape(tokens, 2)


def heard_frames(mel: Array) -> Array:
    """Which frames of 20 ms of a log-mel spectrogram [mels, frames of 10 ms] are loud: bool [frames / 2]."""
    levels = mel.reshape(mel.shape[0], -1, 2).mean(axis=(0, 2))
    sounding = np.flatnonzero(levels > levels.min() + 1e-3)  # digital silence tells nothing of the background
    if not len(sounding):
        return np.zeros(len(levels), bool)
    background, loud = np.percentile(levels[sounding], (10, 95))
    quietest = np.percentile(levels[: sounding[-1] + 1], 10)  # before the silence that was added
    heard: Array = levels > background + SHARE * (loud - background)
    near: Array = levels > quietest + FADING * (loud - quietest)
    for _ in range(FADE):
        heard = heard | (near & (np.append(heard[1:], False) | np.append(False, heard[:-1])))
    return heard


def _normalized(attention: Array) -> Array:
    """Each frame's attention among the tokens, in standard deviations of it."""
    mean, deviation = attention.mean(axis=1, keepdims=True), attention.std(axis=1, keepdims=True)
    normalized: Array = (attention - mean) / np.maximum(deviation, 1e-9)
    return normalized


def _median(weights: Array) -> Array:
    padded = np.pad(weights, ((0, 0), (0, 0), (MEDIAN // 2, MEDIAN // 2)), mode="reflect")
    smoothed: Array = np.median(sliding_window_view(padded, MEDIAN, axis=-1), axis=-1)
    return smoothed


def _path(weights: Array) -> Array:
    """The first frame of each row on the path of most weight: from frame to frame it stays in its row or takes the
    next one."""
    rows, frames = weights.shape
    best = np.full(rows, -np.inf)
    best[0] = weights[0, 0]
    came = np.zeros((frames, rows), bool)
    for frame in range(1, frames):
        before = np.concatenate([[-np.inf], best[:-1]])
        came[frame] = before > best
        best = np.maximum(before, best) + weights[:, frame]
    begins = np.zeros(rows, np.int64)
    row = rows - 1
    for frame in range(frames - 1, 0, -1):
        if came[frame, row]:
            begins[row] = frame
            row -= 1
    return begins


def _runs(heard: Array) -> list[tuple[int, int]]:
    """Stretches of loud frames; gaps shorter than a pause are part of them."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], heard, [False]]).astype(np.int8)))
    runs: list[tuple[int, int]] = []
    for first, last in edges.reshape(-1, 2).tolist():
        if runs and first - runs[-1][1] < PAUSE:
            runs[-1] = (runs[-1][0], last)
        else:
            runs.append((first, last))
    return [(first, last) for first, last in runs if last - first >= SHORTEST]


def _heard_part(first: int, last: int, attention: Array, runs: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The part of a token's frames that belongs to it: of several stretches the one that was attended to most; None
    when nothing is heard in them."""
    parts = [(max(first, begin), min(last, end)) for begin, end in runs if begin < last and end > first]
    return max(parts, key=lambda part: float(attention[part[0] : part[1]].sum()), default=None)
