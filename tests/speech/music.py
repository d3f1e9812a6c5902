"""Sounds in which nobody speaks: hum, tones and music, synthesized."""

from __future__ import annotations

import numpy as np

from ortmesh.serving.types import Array
from ortmesh_speech.audio import SAMPLE_RATE, Samples

SCALE = 220 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
"""A major, in hertz."""


def tone(hertz: float, seconds: float) -> Samples:
    """A pure one."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return _single(0.2 * np.sin(2 * np.pi * hertz * time))


def hum(hertz: float, seconds: float) -> Samples:
    """Of mains: 50 or 60 Hz and some of its harmonics."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    parts = [0.15 / k * np.sin(2 * np.pi * hertz * k * time + k) for k in (1, 2, 3, 5, 7)]
    return _single(np.sum(parts, axis=0))


def melody(seconds: float, seed: int = 0) -> Samples:
    """Plucked notes, one after another."""
    random = np.random.default_rng(seed)
    notes = [_note(hertz, 0.4) for hertz in random.choice(SCALE, int(seconds / 0.4) + 1)]
    return np.concatenate(notes)[: int(seconds * SAMPLE_RATE)]


def chords(seconds: float) -> Samples:
    """Major triads of a second each."""
    roots = np.resize([220.0, 174.6, 261.6, 196.0], int(seconds) + 1)
    played = [sum(_note(root * 2 ** (step / 12), 1.0) for step in (0, 4, 7)) / 2 for root in roots]
    return np.concatenate(played)[: int(seconds * SAMPLE_RATE)].astype(np.float32)


def lead(seconds: float) -> Samples:
    """A voice-like instrument: rich in overtones, with vibrato."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    swell = np.minimum(np.minimum(1, time * 10), (1 - time) * 10)
    notes = []
    for hertz in np.resize([330.0, 392, 440, 392, 330, 294, 262], int(seconds) + 1):
        phase = 2 * np.pi * np.cumsum(hertz * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * time))) / SAMPLE_RATE
        notes.append(0.2 * swell * np.sum([np.sin(k * phase) / k for k in range(1, 12)], axis=0))
    return np.concatenate(notes)[: int(seconds * SAMPLE_RATE)].astype(np.float32)


def drums(seconds: float, seed: int = 0) -> Samples:
    """A bass drum and a hi-hat by turns."""
    random = np.random.default_rng(seed)
    time = np.arange(SAMPLE_RATE // 4) / SAMPLE_RATE
    bass = 0.5 * np.exp(-25 * time) * np.sin(2 * np.pi * (60 + 60 * np.exp(-40 * time)) * time)
    beats = [bass if beat % 2 == 0 else _hat(random, time) for beat in range(int(seconds * 4) + 1)]
    return np.concatenate(beats)[: int(seconds * SAMPLE_RATE)].astype(np.float32)


def band(seconds: float) -> Samples:
    """All of it."""
    return _single((melody(seconds) + chords(seconds) + drums(seconds)) / 2)


def mixed(speech: Samples, other: Samples, decibels: float) -> Samples:
    """Speech over another sound, so much louder than it."""
    other = np.resize(other, len(speech))
    gain = np.sqrt(np.mean(speech**2) / np.mean(other**2)) * 10 ** (-decibels / 20)
    together = speech + gain * other
    return _single(together / max(1.0, float(np.abs(together).max())))


def _note(hertz: float, seconds: float) -> Samples:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sum([np.sin(2 * np.pi * hertz * k * time) / k**1.5 for k in range(1, 7)], axis=0)
    return _single(0.25 * np.exp(-3 * time) * tone)


def _hat(random: np.random.Generator, time: Array) -> Samples:
    return _single(0.2 * np.exp(-30 * time) * random.standard_normal(len(time)))


def _single(samples: Array) -> Samples:
    made: Samples = samples.astype(np.float32)
    return made
