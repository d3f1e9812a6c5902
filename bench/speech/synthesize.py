"""Synthesize: when the first audio comes, how quickly the rest, and whether the words are heard again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.speech.corpus import lines
from bench.speech.service import Service
from bench.speech.words import errors, total
from ortmesh.speech.v1 import speech_pb2
from ortmesh.speech.v1.speech_pb2 import Audio, RawAudio, RecognizeRequest, SynthesizeRequest

SENTENCES, PARAGRAPHS, QUICK = 24, 4, 6
SAMPLE_BYTES = 2
SECTION = """\
`first` is the time from the request to the first bytes of audio; `audio s a s` seconds of audio a second until the
last; `word errors` those of Recognize on what was spoken, which a text that is heard wrongly causes as well as one
that is spoken wrongly."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One text."""

    text: str
    audio: bytes
    rate: int
    first: float
    """Seconds from the request to the first audio."""
    whole: float
    """Seconds from the request to the last."""

    @property
    def seconds(self) -> float:
        """Of audio."""
        return len(self.audio) / SAMPLE_BYTES / self.rate


def section(service: Service, *, quick: bool) -> str:
    """The section on spoken texts."""
    count = QUICK if quick else SENTENCES
    kinds = {"sentences": lines("utterances")[:count], "paragraphs": lines("talks")[: 1 if quick else PARAGRAPHS]}
    speak(service, kinds["sentences"][0])
    head = ["texts", "count", "first p50, s", "first max, s", "audio s a s", "word errors"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    rows += [row(service, name, [speak(service, text) for text in texts]) for name, texts in kinds.items()]
    return "\n".join([SECTION, "", *rows])


def speak(service: Service, text: str) -> Spoken:
    """One text, spoken by the service."""
    request = SynthesizeRequest(text=text, format=speech_pb2.AUDIO_FORMAT_S16LE)
    parts: list[bytes] = []
    rate, first, began = 0, 0.0, time.perf_counter()
    for answer in service.client.speech.Synthesize(request):
        rate = rate or answer.sample_rate_hertz
        if answer.audio and not parts:
            first = time.perf_counter() - began
        parts.append(answer.audio)
    return Spoken(text, b"".join(parts), rate, first, time.perf_counter() - began)


def row(service: Service, name: str, spoken: Sequence[Spoken]) -> str:
    """A line of the table."""
    firsts = sorted(each.first for each in spoken)
    speed = sum(each.seconds for each in spoken) / sum(each.whole for each in spoken)
    rate = total(errors(each.text, hear(service, each)) for each in spoken).rate
    cells = [name, str(len(spoken)), f"{firsts[len(firsts) // 2]:.3f}", f"{firsts[-1]:.3f}"]
    return f"| {' | '.join([*cells, f'{speed:.1f}', f'{rate:.3f}'])} |"


def hear(service: Service, spoken: Spoken) -> str:
    """What Recognize hears."""
    raw = RawAudio(
        sample_rate_hertz=spoken.rate, channels=1, format=speech_pb2.SAMPLE_FORMAT_S16LE, samples=spoken.audio
    )
    return service.client.speech.Recognize(RecognizeRequest(audio=Audio(raw=raw))).transcript
