"""SpeechService.StreamingDetectSpeech on Silero VAD: what DetectSpeech finds in the whole, told as it is spoken."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
import pytest_asyncio
import soxr
from google.protobuf.duration_pb2 import Duration

from ortmesh.config import cpus
from ortmesh.errors import BadInput, Cancelled, Expired, NotFound
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.speech.v1.speech_pb2 import (
    SAMPLE_FORMAT_ALAW,
    SAMPLE_FORMAT_F32LE,
    DetectSpeechRequest,
    RawFormat,
    SpeechInterval,
    StreamFormat,
    StreamingDetectSpeechConfig,
    StreamingDetectSpeechRequest,
    StreamingDetectSpeechResponse,
)
from ortmesh_speech import stream_requests
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.detect_speech import DetectSpeech
from ortmesh_speech.streaming_detect_speech import StreamingDetectSpeech
from tests.speech.streams import S16_16K, all_of, cut, s16, sent, until_left
from tests.speech.voices import SENTENCES, audio, encode, noise, say, silence
from tests.speech.watching import Batches

pytestmark = pytest.mark.asyncio(loop_scope="module")

Request = StreamingDetectSpeechRequest
Config = StreamingDetectSpeechConfig
BETWEEN_WORDS = Duration(nanos=400_000_000)
BATCHES = Batches()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(store: Store) -> AsyncIterator[Models]:
    async with Models(store, "speech", threads=cpus(), meter=BATCHES, only=["silero-vad"]) as models:
        await models.until_loaded()
        yield models


@pytest.fixture
def detect(models: Models) -> StreamingDetectSpeech:
    return StreamingDetectSpeech(models)


@pytest.fixture(scope="module")
def talk() -> Samples:
    """Three sentences, with pauses around them."""
    parts = [silence(0.9)]
    for sentence, pause in zip(SENTENCES[1:4], (1.1, 2.5, 0.7), strict=True):
        parts += [say(sentence), silence(pause)]
    return np.concatenate(parts)


def messages(chunks: Sequence[bytes], config: Config | None = None) -> list[Request]:
    first = Config(format=S16_16K, min_silence=BETWEEN_WORDS) if config is None else config
    return [StreamingDetectSpeechRequest(config=first), *(Request(audio=chunk) for chunk in chunks)]


async def hear(
    detect: StreamingDetectSpeech, call: Call, requests: list[Request]
) -> list[StreamingDetectSpeechResponse]:
    return await all_of(detect(sent(requests), call))


def intervals(answers: Sequence[StreamingDetectSpeechResponse]) -> list[SpeechInterval]:
    return [answer.interval for answer in answers if answer.HasField("interval")]


def times(found: Sequence[SpeechInterval]) -> list[tuple[float, float]]:
    return [(each.start.ToMilliseconds() / 1000, each.end.ToMilliseconds() / 1000) for each in found]


@pytest.mark.parametrize("size", [641, 3200, 70_001, 10**7])
async def test_a_stream_is_heard_as_the_whole(
    detect: StreamingDetectSpeech, call: Call, talk: Samples, size: int
) -> None:
    answers = await hear(detect, call, messages(cut(s16(talk), size)))
    heard = np.frombuffer(s16(talk), np.int16)  # a bit more or less may be what decides about a frame
    request = DetectSpeechRequest(audio=audio(heard, container="WAV"), min_silence=BETWEEN_WORDS)
    whole = await DetectSpeech(detect.models)(request, call)
    assert len(whole.intervals) == 3
    assert times(intervals(answers)) == times(whole.intervals)
    for one, other in zip(intervals(answers), whole.intervals, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


@pytest.mark.parametrize("size", [641, 65_536])
async def test_loud_floats_are_heard_alike_however_they_are_cut(
    detect: StreamingDetectSpeech, call: Call, talk: Samples, size: int
) -> None:
    """Twelve decibels over full scale, as in the whole, and as where they are not so loud."""
    loud = (talk * np.float32(4 / np.abs(talk).max())).astype("<f4")
    raw = RawFormat(sample_rate_hertz=SAMPLE_RATE, format=SAMPLE_FORMAT_F32LE)
    config = Config(format=StreamFormat(raw=raw), min_silence=BETWEEN_WORDS)
    found = intervals(await hear(detect, call, messages(cut(loud.tobytes(), size), config)))
    recording = audio(loud, container="WAV", coding="FLOAT")
    whole = await DetectSpeech(detect.models)(DetectSpeechRequest(audio=recording, min_silence=BETWEEN_WORDS), call)
    assert len(whole.intervals) == 3
    assert times(found) == times(whole.intervals)
    for one, other in zip(found, whole.intervals, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


async def test_the_model_comes_first_and_the_length_last(
    detect: StreamingDetectSpeech, call: Call, talk: Samples
) -> None:
    answers = await hear(detect, call, messages(cut(s16(talk))))
    kinds = [answer.WhichOneof("response") for answer in answers]
    assert kinds == ["model", *["started", "interval"] * 3, "duration"]
    assert (answers[0].model.name, answers[0].model.version) == ("silero-vad", "1")
    assert answers[-1].duration.ToMilliseconds() == pytest.approx(1000 * len(talk) / SAMPLE_RATE, abs=1)
    for started, ended in zip(answers[1:-1:2], answers[2:-1:2], strict=True):
        assert started.started == ended.interval.start


async def test_starts_and_ends_are_told_while_the_caller_goes_on(
    detect: StreamingDetectSpeech, call: Call, talk: Samples
) -> None:
    """Not at the end of the stream: nobody says that there will be one."""
    answers = detect(until_left(messages(cut(s16(talk[: int(7 * SAMPLE_RATE)])))), call)
    kinds = [(await anext(answers)).WhichOneof("response") for _ in range(3)]
    assert kinds == ["model", "started", "interval"]
    await answers.aclose()  # type: ignore[attr-defined]


async def test_a_file_as_it_is_written(detect: StreamingDetectSpeech, call: Call, talk: Samples) -> None:
    content = encode(soxr.resample(talk, SAMPLE_RATE, 48_000), 48_000, "OGG", "OPUS")
    config = Config(format=StreamFormat(container=True), min_silence=BETWEEN_WORDS)
    answers = await hear(detect, call, messages(cut(content, 1000), config))
    assert len(intervals(answers)) == 3


async def test_a_telephone_line(detect: StreamingDetectSpeech, call: Call, talk: Samples) -> None:
    content = encode(soxr.resample(talk, SAMPLE_RATE, 8_000), 8_000, "WAV", "ALAW")
    raw = RawFormat(sample_rate_hertz=8_000, format=SAMPLE_FORMAT_ALAW)
    config = Config(format=StreamFormat(raw=raw), min_silence=BETWEEN_WORDS)
    answers = await hear(detect, call, messages(cut(content[-len(talk) // 2 :], 160), config))
    assert len(intervals(answers)) == 3


@pytest.mark.parametrize("samples", [silence(0), silence(1 / SAMPLE_RATE), silence(0.05), noise(9), silence(30)])
async def test_nobody_speaks(detect: StreamingDetectSpeech, call: Call, samples: Samples) -> None:
    answers = await hear(detect, call, messages(cut(s16(samples))))
    assert [answer.WhichOneof("response") for answer in answers] == ["model", "duration"]
    assert answers[-1].duration.ToMilliseconds() == round(1000 * len(samples) / SAMPLE_RATE)


async def test_streams_at_once_share_batches_and_hear_only_themselves(
    detect: StreamingDetectSpeech, call: Call, talk: Samples
) -> None:
    several = [talk, talk[::-1].copy(), np.concatenate([silence(2.1), talk]), noise(5)]
    alone = [intervals(await hear(detect, call, messages(cut(s16(samples))))) for samples in several]
    BATCHES.clear()
    together = await asyncio.gather(*(hear(detect, call, messages(cut(s16(samples)))) for samples in several))
    assert max(BATCHES.of("silero-vad")) > 1
    assert [times(intervals(answers)) for answers in together] == [times(found) for found in alone]


CHUNK = bytes(100)
GOOD = Config(format=S16_16K)


@pytest.mark.parametrize(
    ("requests", "field", "reason"),
    [
        ([], "config", "is missing"),
        ([Request()], "config", "is missing"),
        ([Request(audio=CHUNK)], "config", "is missing"),
        ([Request(config=GOOD), Request(config=GOOD)], "config", "sent again"),
        ([Request(config=GOOD), Request(audio=CHUNK), Request(config=GOOD)], "config", "sent again"),
        ([Request(config=GOOD), Request()], "audio", "is not set"),
        ([Request(config=GOOD), Request(audio=bytes((1 << 20) + 1))], "audio", "1,048,577 bytes"),
        ([Request(config=Config())], "config.format", "is not set"),
        ([Request(config=Config(format=StreamFormat(raw=RawFormat())))], "config.format.raw.format", "one of"),
        ([Request(config=Config(format=S16_16K, threshold=1.5))], "config.threshold", "expected 0 to 1"),
        ([Request(config=Config(format=S16_16K, threshold=math.nan))], "config.threshold", "expected 0 to 1"),
        (
            [Request(config=Config(format=S16_16K, min_speech=Duration(seconds=11)))],
            "config.min_speech",
            "expected 0 to 10 s",
        ),
        ([Request(config=Config(format=StreamFormat(container=True))), Request(audio=CHUNK)], "audio", "expected WAV"),
    ],
)
async def test_wrong_streams_name_their_field(
    detect: StreamingDetectSpeech, call: Call, requests: list[Request], field: str, reason: str
) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        await hear(detect, call, requests)
    assert caught.value.violations[0].field == field


async def test_a_chunk_of_a_megabyte_is_taken(detect: StreamingDetectSpeech, call: Call) -> None:
    answers = await hear(detect, call, messages([bytes(1 << 20)]))
    assert answers[-1].duration.ToMilliseconds() == 32_768


async def test_models_that_are_not_served_are_not_found(detect: StreamingDetectSpeech, call: Call) -> None:
    with pytest.raises(NotFound, match="silero-vad"):
        await hear(detect, call, messages([], Config(model="silero", format=S16_16K)))


async def test_a_caller_who_never_begins_is_sent_away(
    detect: StreamingDetectSpeech, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_requests, "CONFIG_SECONDS", 0.05)
    with pytest.raises(Expired, match="first message"):
        await all_of(detect(until_left([]), call))


async def test_a_caller_who_left_is_heard_no_more(detect: StreamingDetectSpeech, call: Call, talk: Samples) -> None:
    call.cancel()
    with pytest.raises(Cancelled):
        await hear(detect, call, messages(cut(s16(talk))))
