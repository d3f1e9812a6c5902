"""Bad and odd recordings at every door: each is refused by its field, or read, and no neighbour notices."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import grpc
import numpy as np
import pytest

from ortmesh.client import Client
from ortmesh.speech.v1.speech_pb2 import Audio, DetectSpeechRequest, EmbedSpeakerRequest, RecognizeRequest
from tests.mesh.bad import client, expect_refusal, unharmed
from tests.mesh.conftest import Door, RunningMesh
from tests.speech.ogg import repeated
from tests.speech.voices import encode as sound
from tests.speech.voices import say, silence
from tests.vision.samples import SKIMAGE

INVALID = grpc.StatusCode.INVALID_ARGUMENT
BEYOND = grpc.StatusCode.OUT_OF_RANGE
SENTENCE = "Nobody knew why the lights in the library went out at midnight."
Call = Callable[[Client, Any], Any]
"""Puts a sound into a method's request and sends it."""


@cache
def over_an_hour_of_flac() -> bytes:
    """61 minutes of silence."""
    return sound(silence(61 * 60), container="FLAC")


@cache
def over_an_hour_of_opus() -> bytes:
    """61 minutes of silence."""
    return repeated(sound(silence(61), container="OGG", coding="OPUS"), 61)


def wave(samples: bytes, promised: int) -> bytes:
    """A WAV whose header promises so many bytes of samples."""
    form = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + promised) + form + b"data" + struct.pack("<I", promised) + samples


BAD_SOUNDS: Mapping[str, tuple[Callable[[], bytes], grpc.StatusCode]] = {
    "empty": (bytes, INVALID),
    "no samples": (lambda: wave(b"", 0), INVALID),
    "no samples in FLAC": (lambda: sound(silence(0), container="FLAC"), INVALID),
    "text": (lambda: b"Dear Sir or Madam,\n" * 30, INVALID),
    "picture": (lambda: (SKIMAGE / "coffee.png").read_bytes(), INVALID),
    "header only": (lambda: b"RIFF\x24\x00\x00\x00WAVE", INVALID),
    "not numbers": (lambda: sound(np.full(16_000, np.nan, np.float32), coding="FLOAT"), INVALID),
    "over an hour of FLAC": (over_an_hour_of_flac, BEYOND),
    "over an hour of Opus": (over_an_hour_of_opus, BEYOND),
}
SOUND_METHODS: Mapping[str, Call] = {
    "Recognize": lambda to, audio: to.speech.Recognize(RecognizeRequest(audio=audio), timeout=60),
    "DetectSpeech": lambda to, audio: to.speech.DetectSpeech(DetectSpeechRequest(audio=audio), timeout=60),
    "EmbedSpeaker": lambda to, audio: to.speech.EmbedSpeaker(EmbedSpeakerRequest(audio=audio), timeout=60),
}


def spoken(rate: int, channels: int = 1, coding: str | None = None) -> bytes:
    """The sentence, at a rate, in several channels, as WAV."""
    samples = say(SENTENCE)
    places = np.arange(len(samples) * rate // 16_000) * 16_000 / rate
    resampled = np.interp(places, np.arange(len(samples)), samples)
    return sound(np.stack([resampled] * channels, axis=1), rate, "WAV", coding)


GOOD_SOUNDS: Mapping[str, Callable[[], bytes]] = {
    "8 bits": lambda: spoken(16_000, coding="PCM_U8"),
    "8 channels": lambda: spoken(16_000, channels=8),
    "96 kHz": lambda: spoken(96_000),
    "promises more": lambda: wave((say(SENTENCE) * 32767).astype("<i2").tobytes(), 50_000_000),
}


@pytest.fixture(scope="module", autouse=True)
def _unharmed(mesh: RunningMesh) -> Iterator[None]:
    good = DetectSpeechRequest(audio=Audio(encoded=spoken(16_000)))
    with unharmed(mesh, "speech", lambda to: to.speech.DetectSpeech(good)):
        yield


@pytest.mark.parametrize("method", SOUND_METHODS)
@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_what_is_no_sound_is_refused(door: Door, name: str, method: str) -> None:
    made, code = BAD_SOUNDS[name]
    audio = Audio(encoded=made())
    with client(door, "speech") as to:
        expect_refusal(lambda: SOUND_METHODS[method](to, audio), code, "audio.encoded")


@pytest.mark.parametrize("method", SOUND_METHODS)
def test_no_sound_at_all_is_refused(door: Door, method: str) -> None:
    with client(door, "speech") as to:
        expect_refusal(lambda: SOUND_METHODS[method](to, Audio()), INVALID, "audio")


@pytest.mark.parametrize("name", GOOD_SOUNDS)
def test_odd_sounds_say_what_they_say(door: Door, name: str) -> None:
    audio = Audio(encoded=GOOD_SOUNDS[name]())
    with client(door, "speech") as to:
        heard = SOUND_METHODS["Recognize"](to, audio)
        (stretch,) = SOUND_METHODS["DetectSpeech"](to, audio).intervals
    assert re.sub(r"\W+", " ", heard.transcript.lower()).split() == re.findall(r"\w+", SENTENCE.lower())
    seconds = len(say(SENTENCE)) / 16_000
    assert heard.duration.ToTimedelta().total_seconds() == pytest.approx(seconds, abs=0.01)
    assert stretch.end.ToTimedelta().total_seconds() <= seconds
