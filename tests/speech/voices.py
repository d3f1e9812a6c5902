"""Speech with a known text for the tests: synthesized by Hibari (Apache-2.0), whose seed makes it deterministic."""

from __future__ import annotations

import io
import math
import re
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import soundfile
import soxr
from hibari import Hibari

from ortmesh.catalogue.recipes.hibari import unshare
from ortmesh.serving.executor.sessions import EXACT_SUMS
from ortmesh.speech.v1.speech_pb2 import Audio
from ortmesh_speech.audio import SAMPLE_RATE, Samples

SENTENCES = (
    "In the morning the old sailor walked down to the harbor and looked at the boats.",
    "Most people forget that a good night of sleep improves memory and mood.",
    "She opened the window, took a deep breath, and listened to the rain falling on the garden.",
    "A long narrow road leads from the village through the forest to the river, where children swim in summer.",
    "The quick brown fox jumps over the lazy dog.",
    "Please bring your passport and a printed copy of the ticket to the counter.",
    "The museum is closed on Mondays, but the gardens are open every day.",
    "He paid for the coffee, folded his newspaper, and left without a word.",
    "Our neighbors planted apple trees along the fence last spring.",
    "Nobody knew why the lights in the library went out at midnight.",
    "Water the plants before you go, and do not forget to lock the door.",
    "The doctor said that walking every evening would help her heart.",
    "They built a small bridge of wood across the stream behind the school.",
    "When the storm was over, the fishermen counted the damage to their nets.",
    "The committee will decide about the new playground next week.",
    "Fresh bread and warm soup were waiting on the kitchen table.",
    "The engineer explained how the machine sorts letters by their size.",
    "I left my umbrella on the bus, so I came home completely wet.",
    "The teacher asked the class to write a short letter to a friend.",
    "Two strangers helped us push the car out of the snow.",
)


@cache
def say(text: str, *, seed: int = 0, speed: float = 1.0) -> Samples:
    """The text as speech at 16 kHz, about 15 characters a second."""
    spoken = _voice()(text, seed=seed, speed=speed)
    samples: Samples = np.asarray(soxr.resample(spoken, 24_000, SAMPLE_RATE), np.float32)
    samples.flags.writeable = False
    return samples


@cache
def say_deeply(text: str) -> Samples:
    """The same by another voice: lower by a fifth, with the formants of a longer throat, and slower."""
    samples: Samples = np.asarray(soxr.resample(say(text), 0.78 * SAMPLE_RATE, SAMPLE_RATE), np.float32)
    return samples


@cache
def _voice() -> Any:
    """The package's, with sums that are exact on every processor: it sounds the same on each, but for rounding."""
    voice = Hibari(threads=1)
    model, options = onnx.load(voice.model_path), onnxruntime.SessionOptions()
    unshare(model.graph)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry(*EXACT_SUMS)
    voice.sess = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return voice


def noise(seconds: float, level: float = 0.05, seed: int = 0) -> Samples:
    """White noise of a root mean square."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(int(seconds * SAMPLE_RATE)) * level).astype(np.float32)


def noisy(samples: Samples, decibels: float, seed: int = 0) -> Samples:
    """With white noise so far below the mean power of what is not silent."""
    level = math.sqrt(float(np.mean(samples[samples != 0] ** 2)) / 10 ** (decibels / 10))
    return samples + noise(len(samples) / SAMPLE_RATE + 1, level=level, seed=seed)[: len(samples)]


def silence(seconds: float) -> Samples:
    """Nothing at all."""
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def encode(samples: Any, rate: int = SAMPLE_RATE, container: str = "WAV", coding: str | None = None) -> bytes:
    """An audio file in memory."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=coding)
    return file.getvalue()


def audio(samples: Any, rate: int = SAMPLE_RATE, container: str = "FLAC", coding: str | None = None) -> Audio:
    """The same in the API's message."""
    return Audio(encoded=encode(samples, rate, container, coding))


@cache
def over_an_hour() -> bytes:
    """61 minutes of silence in FLAC: 180 kB, whose header says how long they are."""
    return encode(np.zeros(61 * 60 * SAMPLE_RATE, np.int16), container="FLAC", coding="PCM_16")


HEADER_BYTES = 2048
"""Of a file of FLAC, with its header and hardly any sound: whoever reads on finds it cut off."""


def word_errors(spoken: str, heard: str) -> int:
    """Words that were changed, left out or added (Levenshtein's distance over words)."""
    expected, got = _words(spoken), _words(heard)
    row = list(range(len(got) + 1))
    for number, word in enumerate(expected, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(got, 1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (word != other))
    return row[-1]


def _words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("-", " ")).split()
