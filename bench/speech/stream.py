"""Stream: one call of StreamingRecognize, whose audio comes as it is spoken, and when its answers came."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import soundfile
from google.protobuf.duration_pb2 import Duration

from bench.speech.corpus import Recording
from bench.speech.sounds import RATE, Samples
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2
from ortmesh.speech.v1.speech_pb2 import StreamingRecognizeRequest

CHUNK_SECONDS = 0.1
END_SILENCE = 0.5
"""Seconds that end an utterance: the default, said so that it is known here."""
TIMEOUT_SECONDS = 7200


@dataclass(frozen=True, slots=True)
class Final:
    """A result."""

    text: str
    start: float
    end: float
    """Seconds from the start of the audio."""
    came: float
    """Seconds after the stream's first sample was sent, as all times here."""


@dataclass(frozen=True, slots=True)
class Interim:
    """What was heard so far."""

    text: str
    stable: str
    start: float
    heard: float
    came: float


@dataclass
class Answers:
    """Of one stream."""

    finals: list[Final] = field(default_factory=list)
    interims: list[Interim] = field(default_factory=list)
    sent: float = 0.0
    """When the last sample was sent."""
    ended: float = 0.0

    @property
    def text(self) -> str:
        """All that was said."""
        return " ".join(final.text for final in self.finals)

    def delays(self, ends: tuple[tuple[float, float], ...]) -> list[float]:
        """From the end of each utterance, and the silence that ends it, to its last result; infinite without one.

        A result belongs to the utterance in which its middle lies, or that is nearest to it.
        """
        last = [float("inf")] * len(ends)
        for final in self.finals:
            middle = (final.start + final.end) / 2
            nearest = min(range(len(ends)), key=lambda place: _distance(ends[place], middle))
            delay = final.came - ends[nearest][1] - END_SILENCE
            last[nearest] = delay if last[nearest] == float("inf") else max(last[nearest], delay)
        return last

    def flaps(self) -> int:
        """How often what was called stable did not stay."""
        return sum(
            later.start == earlier.start and not later.stable.startswith(earlier.stable)
            for earlier, later in zip(self.interims, self.interims[1:], strict=False)
        )


def follow(client: Client, samples: Samples, *, pace: float = 1.0, interims: bool = True, repeats: int = 1) -> Answers:
    """Sends samples at 16 kHz, `pace` times as quickly as they are spoken, and reads all answers.

    `repeats` sends them again and again in the same stream.
    """
    answers = Answers()
    pcm = (samples * 32767).astype("<i2").tobytes()
    began = time.monotonic()
    for answer in client.speech.StreamingRecognize(
        _requests(pcm, began, pace, repeats, answers, interims=interims), timeout=TIMEOUT_SECONDS
    ):
        came = time.monotonic() - began
        if answer.HasField("result"):
            result = answer.result
            answers.finals.append(Final(result.transcript, seconds(result.start), seconds(result.end), came))
        elif answer.HasField("interim"):
            heard = answer.interim
            answers.interims.append(
                Interim(heard.transcript, heard.stable, seconds(heard.start), seconds(heard.heard), came)
            )
    answers.ended = time.monotonic() - began
    return answers


def samples_of(recording: Recording) -> Samples:
    """A file of the corpus."""
    samples: Samples = soundfile.read(recording.path, dtype="float32")[0]
    return np.asarray(samples)


def seconds(duration: Duration) -> float:
    """A duration of the API."""
    return float(duration.seconds) + float(duration.nanos) / 1e9


def _requests(
    pcm: bytes, began: float, pace: float, repeats: int, answers: Answers, *, interims: bool
) -> Iterator[StreamingRecognizeRequest]:
    raw = speech_pb2.RawFormat(sample_rate_hertz=RATE, channels=1, format=speech_pb2.SAMPLE_FORMAT_S16LE)
    yield StreamingRecognizeRequest(
        config=speech_pb2.StreamingRecognizeConfig(
            format=speech_pb2.StreamFormat(raw=raw),
            interim_results=interims,
            end_silence=Duration(nanos=round(END_SILENCE * 1e9)),
        )
    )
    size = round(CHUNK_SECONDS * RATE) * 2
    sent = 0.0
    for _ in range(repeats):
        for start in range(0, len(pcm), size):
            chunk = pcm[start : start + size]
            sent += len(chunk) / 2 / RATE
            time.sleep(max(0.0, began + sent / pace - time.monotonic()))  # a chunk leaves when all of it was said
            yield StreamingRecognizeRequest(audio=chunk)
            answers.sent = time.monotonic() - began


def _distance(span: tuple[float, float], at: float) -> float:
    return max(span[0] - at, at - span[1], 0.0)
