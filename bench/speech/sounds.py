"""Sounds: what lies around speech: noises, a room's echo, music, silence; all of them drawn with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.float32]

RATE = 16_000
LEVEL = 0.05
"""Root mean square of speech: -26 dB below full scale, as telephone tests have it."""
FLOOR = 0.0005
"""Root mean square of what a quiet room adds: -66 dB."""
TALKERS = 6
"""Voices of a babble: no single one can be followed."""
ECHO_SECONDS = 0.5
"""Until an echo has fallen by 60 dB: a living room or an office."""
DIRECT_SHARE = 0.5
"""Of the energy that comes on the direct way: the speaker is some two metres away."""
LOUDEST = 0.99


def silence(seconds: float) -> Samples:
    """Nothing at all."""
    return np.zeros(round(seconds * RATE), np.float32)


def level(samples: Samples) -> float:
    """Root mean square of those stretches of 20 ms that are not silent."""
    frame = RATE // 50
    powers = (samples[: len(samples) // frame * frame].reshape(-1, frame).astype(np.float64) ** 2).mean(axis=1)
    return float(np.sqrt(powers[powers > powers.max() * 1e-4].mean()))


def at_level(samples: Samples, wanted: float = LEVEL) -> Samples:
    """The same, so loud."""
    return (samples * (wanted / level(samples))).astype(np.float32)


def white(length: int, seed: int) -> Samples:
    """Noise of equal power at every frequency, root mean square 1."""
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32)


def pink(length: int, seed: int) -> Samples:
    """Noise whose power falls with the frequency, root mean square 1."""
    spectrum = np.fft.rfft(white(length, seed))
    shaped = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), length)
    return _at_unit(shaped)


def babble(length: int, speech: Sequence[Samples], seed: int) -> Samples:
    """Many people who speak at once, root mean square 1: recordings, each from a place of its own, again and again."""
    chance = np.random.default_rng(seed)
    chosen = chance.choice(len(speech), TALKERS, replace=False)
    mixed = np.zeros(length, np.float32)
    for each in chosen:
        samples = at_level(speech[each])
        mixed += np.resize(np.roll(samples, int(chance.integers(len(samples)))), length)
    return _at_unit(mixed)


def with_noise(speech: Samples, noise: Samples, decibels: float) -> Samples:
    """Speech that is so much louder than the noise (of root mean square 1)."""
    return bounded(speech + noise * np.float32(level(speech) * 10 ** (-decibels / 20)))


def with_echo(speech: Samples, seed: int) -> Samples:
    """Speech in a room: the direct sound, then noise that dies away (Moorer, 1979); as loud as before."""
    length = round(ECHO_SECONDS * RATE)
    times = np.arange(length) / RATE
    tail = white(length, seed) * 10 ** (-3 * times / ECHO_SECONDS)
    tail[: RATE // 500] = 0  # the first wall is some distance away
    tail *= np.sqrt((1 - DIRECT_SHARE) / DIRECT_SHARE / np.sum(tail**2))
    tail[0] = 1
    size = len(speech) + length
    heard = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(tail, size), size).astype(np.float32)
    return bounded(heard * np.float32(level(speech) / level(heard)))


def music(seconds: float, seed: int) -> Samples:
    """Chords of plucked strings and a melody: sums of harmonics that die away."""
    chance = np.random.default_rng(seed)
    made = silence(seconds)
    beat = 0.4
    for number in range(int(seconds / beat)):
        root = 110 * 2 ** (int(chance.choice([0, 5, 7, 9])) / 12)
        notes = [root, root * 1.5, root * 2 * 2 ** (int(chance.choice([0, 2, 4, 7, 9, 12])) / 12)]
        for note in notes[-1:] if number % 4 else notes:
            _add(made, note, round(number * beat * RATE))
    return at_level(made)


def bounded(samples: Samples) -> Samples:
    """Within full scale: quieter as a whole where it would not be."""
    peak = float(np.abs(samples).max())
    return samples if peak <= LOUDEST else (samples * np.float32(LOUDEST / peak)).astype(np.float32)


def _at_unit(noise: npt.NDArray[np.floating]) -> Samples:
    return np.asarray(noise / np.sqrt(np.mean(noise**2)), np.float32)


def _add(made: Samples, note: float, start: int) -> None:
    length = min(RATE, len(made) - start)
    times = np.arange(length) / RATE
    for harmonic in range(1, 7):
        wave = np.sin(2 * np.pi * note * harmonic * times) * np.exp(-4 * harmonic * times) / harmonic
        made[start : start + length] += wave.astype(np.float32)
