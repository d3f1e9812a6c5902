"""SpeechService.DetectSpeech on Silero VAD: where speech begins and ends, and where there is none."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
import soxr
from google.protobuf.duration_pb2 import Duration

from ortmesh.config import cpus
from ortmesh.errors import BadInput, Cancelled, Expired, ModelFailed, NotFound, OutOfRange, Overloaded
from ortmesh.front.call import Call
from ortmesh.serving.batcher import ArrivalOrder
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.warmup import Mode
from ortmesh.speech.v1.speech_pb2 import Audio, DetectSpeechRequest, DetectSpeechResponse
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.detect_speech import DetectSpeech
from ortmesh_speech.voice_activity import pieces
from tests.speech.music import hum, tone
from tests.speech.voices import HEADER_BYTES, SENTENCES, audio, noise, noisy, over_an_hour, say, silence
from tests.speech.watching import Batches, handed_to

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAUSES = (1.3, 0.8, 2.0, 0.6, 1.1, 3.0, 0.9)
"""Before each sentence, and behind the last."""
BETWEEN_WORDS = Duration(nanos=400_000_000)
"""Longer than the pauses within a sentence."""


BATCHES = Batches()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def detect(store: Store) -> AsyncIterator[DetectSpeech]:
    """The task on the real model, loaded once for all tests here."""
    async with Models(store, "speech", threads=cpus(), meter=BATCHES) as models:
        await models.until_loaded()
        yield DetectSpeech(models)


@pytest.fixture(scope="module")
def talk() -> tuple[Samples, list[tuple[float, float]]]:
    """Six sentences, and where each begins and ends to the ear."""
    parts, spoken, at = [silence(PAUSES[0])], [], PAUSES[0]
    for sentence, pause in zip(SENTENCES, PAUSES[1:], strict=False):
        samples = say(sentence)
        first, last = audible(samples)
        spoken.append((at + first, at + last))
        parts += [samples, silence(pause)]
        at += len(samples) / SAMPLE_RATE + pause
    return np.concatenate(parts), spoken


def audible(samples: Samples) -> tuple[float, float]:
    """Seconds between which there are stretches of 10 ms at most 45 dB below the loudest one."""
    whole = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    powers = np.square(whole).mean(axis=1)
    loud = np.flatnonzero(powers > powers.max() * 10**-4.5)
    return loud[0] / 100, (loud[-1] + 1) / 100


def times(answer: DetectSpeechResponse) -> list[tuple[float, float]]:
    return [(each.start.ToMilliseconds() / 1000, each.end.ToMilliseconds() / 1000) for each in answer.intervals]


async def hear(detect: DetectSpeech, call: Call, samples: Samples) -> DetectSpeechResponse:
    return await detect(DetectSpeechRequest(audio=audio(samples), min_silence=BETWEEN_WORDS), call)


def assert_near(found: list[tuple[float, float]], spoken: list[tuple[float, float]], within: float = 0.15) -> None:
    assert len(found) == len(spoken)
    for one, other in zip(found, spoken, strict=True):
        assert one == pytest.approx(other, abs=within)


async def test_sentences_are_found_where_they_are(
    detect: DetectSpeech, call: Call, talk: tuple[Samples, list[tuple[float, float]]]
) -> None:
    samples, spoken = talk
    answer = await hear(detect, call, samples)
    assert_near(times(answer), spoken)
    assert (answer.model.name, answer.model.version) == ("silero-vad", "1")
    assert answer.duration.ToTimedelta().total_seconds() == pytest.approx(len(samples) / SAMPLE_RATE, abs=0.001)
    assert all(0.8 < each.confidence <= 1 for each in answer.intervals)


async def test_sentences_are_found_in_noise_of_10_decibels(
    detect: DetectSpeech, call: Call, talk: tuple[Samples, list[tuple[float, float]]]
) -> None:
    samples, spoken = talk
    assert_near(times(await hear(detect, call, noisy(samples, 10))), spoken, within=0.3)


async def test_speech_from_the_first_to_the_last_sample(detect: DetectSpeech, call: Call) -> None:
    spoken = say(SENTENCES[4])
    first, last = (int(edge * SAMPLE_RATE) for edge in audible(spoken))
    ((start, end),) = times(await hear(detect, call, spoken[first:last]))
    assert (start, end) == (pytest.approx(0, abs=0.1), pytest.approx((last - first) / SAMPLE_RATE, abs=0.05))


@pytest.mark.parametrize(
    "samples",
    [
        silence(10),
        noise(9, 2e-5),
        noise(9, 0.002),
        noise(9, 0.05),
        noise(9, 0.3),
        tone(440, 9),
        hum(50, 9),
        silence(0.01),
    ],
    ids=["silence", "16 bits", "soft noise", "noise", "loud noise", "tone", "hum", "10 ms"],
)
async def test_nobody_speaks(detect: DetectSpeech, call: Call, samples: Samples) -> None:
    answer = await detect(DetectSpeechRequest(audio=audio(samples)), call)
    assert times(answer) == []
    assert answer.duration.ToTimedelta().total_seconds() == pytest.approx(len(samples) / SAMPLE_RATE, abs=0.001)


async def test_speech_after_minutes_of_silence(detect: DetectSpeech, call: Call) -> None:
    spoken = say(SENTENCES[4])
    first, last = audible(spoken)
    answer = await hear(detect, call, np.concatenate([silence(200), spoken, silence(1)]))
    assert_near(times(answer), [(200 + first, 200 + last)])


async def test_short_pauses_divide_a_sentence_only_when_asked_for(detect: DetectSpeech, call: Call) -> None:
    """Most people forget that a good night | of sleep improves memory and mood."""
    request = DetectSpeechRequest(audio=audio(say(SENTENCES[1])))
    assert len(times(await detect(request, call))) == 2
    request.min_silence.FromMilliseconds(300)
    assert len(times(await detect(request, call))) == 1


async def test_short_stretches_are_left_out(detect: DetectSpeech, call: Call) -> None:
    request = DetectSpeechRequest(audio=audio(say(SENTENCES[4])), min_silence=BETWEEN_WORDS)
    request.min_speech.FromSeconds(9)
    assert times(await detect(request, call)) == []


async def test_a_higher_threshold_finds_less(
    detect: DetectSpeech, call: Call, talk: tuple[Samples, list[tuple[float, float]]]
) -> None:
    request = DetectSpeechRequest(audio=audio(noisy(talk[0], 0)))
    lengths = []
    for request.threshold in (0.05, 0.5, 0.999):
        lengths.append(sum(end - start for start, end in times(await detect(request, call))))
    assert lengths[0] > lengths[1] > lengths[2]


@pytest.mark.parametrize(
    ("rate", "channels", "container", "coding"),
    [(8_000, 1, "WAV", "ULAW"), (44_100, 2, "MP3", "MPEG_LAYER_III"), (48_000, 1, "OGG", "OPUS")],
)
async def test_recordings_as_people_send_them(
    detect: DetectSpeech,
    call: Call,
    talk: tuple[Samples, list[tuple[float, float]]],
    rate: int,
    channels: int,
    container: str,
    coding: str,
) -> None:
    samples, spoken = talk
    many = np.stack([soxr.resample(samples, SAMPLE_RATE, rate)] * channels, axis=1)
    request = DetectSpeechRequest(audio=audio(many, rate, container, coding), min_silence=BETWEEN_WORDS)
    assert_near(times(await detect(request, call)), spoken, within=0.2)


async def test_recordings_at_once_are_heard_as_alone(
    detect: DetectSpeech,
    call: Call,
    talk: tuple[Samples, list[tuple[float, float]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their blocks share batches: none may hear another's, nor go on in its state."""
    (model,) = [model for model in detect.models.list() if model.name == "silero-vad"]
    assert model.mode is Mode.TOGETHER
    monkeypatch.setattr(model._pile, "_policy", ArrivalOrder())  # whatever costs the least on this machine today
    several = [talk[0], noisy(talk[0], 5, seed=1), np.concatenate([silence(2.1), talk[0][::-1]]), noise(40)]
    alone = [await hear(detect, call, samples) for samples in several]
    BATCHES.clear()
    together = await asyncio.gather(*(hear(detect, call, samples) for samples in several))
    assert max(BATCHES.of("silero-vad")) > 1
    for one, other in zip(alone, together, strict=True):
        assert times(one) == times(other)
        for each, same in zip(one.intervals, other.intervals, strict=True):
            assert each.confidence == pytest.approx(same.confidence, abs=1e-4)
    assert len({len(times(answer)) for answer in alone}) > 1


async def test_where_blocks_end_is_not_heard(
    detect: DetectSpeech,
    call: Call,
    talk: tuple[Samples, list[tuple[float, float]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each block goes on in the state of the one before."""
    whole = await hear(detect, call, talk[0])
    monkeypatch.setattr("ortmesh_speech.voice_activity.BLOCK_FRAMES", 2)
    pieces = await hear(detect, call, talk[0])
    assert times(pieces) == times(whole)
    for one, other in zip(pieces.intervals, whole.intervals, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


async def test_longer_than_an_hour_is_refused_at_once(detect: DetectSpeech, call: Call) -> None:
    """By its header: the rest is not there."""
    with pytest.raises(OutOfRange) as caught:
        await detect(DetectSpeechRequest(audio=Audio(encoded=over_an_hour()[:HEADER_BYTES])), call)
    assert caught.value.violations[0].field == "audio.encoded"


RECORDING = audio(silence(1))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (DetectSpeechRequest(), "audio"),
        (DetectSpeechRequest(audio=Audio(encoded=b"no audio at all")), "audio.encoded"),
        (DetectSpeechRequest(audio=audio(np.empty(0), container="WAV")), "audio.encoded"),
        (DetectSpeechRequest(audio=RECORDING, threshold=1.01), "threshold"),
        (DetectSpeechRequest(audio=RECORDING, threshold=-0.5), "threshold"),
        (DetectSpeechRequest(audio=RECORDING, threshold=math.nan), "threshold"),
        (DetectSpeechRequest(audio=RECORDING, min_speech=Duration(seconds=11)), "min_speech"),
        (DetectSpeechRequest(audio=RECORDING, min_speech=Duration(seconds=-1)), "min_speech"),
        (DetectSpeechRequest(audio=RECORDING, min_silence=Duration(seconds=10, nanos=1)), "min_silence"),
        (DetectSpeechRequest(audio=RECORDING, min_silence=Duration(seconds=1, nanos=-1)), "min_silence"),
        (DetectSpeechRequest(audio=RECORDING, min_silence=Duration(nanos=1_000_000_000)), "min_silence"),
    ],
)
async def test_wrong_requests_name_their_field(
    detect: DetectSpeech, call: Call, request_: DetectSpeechRequest, field: str
) -> None:
    with pytest.raises(BadInput) as caught:
        await detect(request_, call)
    assert caught.value.violations[0].field == field


async def test_bounds_may_be_zero_and_ten_seconds(detect: DetectSpeech, call: Call) -> None:
    request = DetectSpeechRequest(audio=RECORDING, threshold=1, min_speech=Duration(), min_silence=Duration(seconds=10))
    assert times(await detect(request, call)) == []


async def test_models_that_do_not_detect_speech_are_refused(detect: DetectSpeech, call: Call) -> None:
    with pytest.raises(NotFound, match="silero-vad"):
        await detect(DetectSpeechRequest(model="silero", audio=RECORDING), call)
    with pytest.raises(BadInput, match="model"):
        await detect(DetectSpeechRequest(model="whisper-tiny-en", audio=RECORDING), call)


async def test_a_caller_who_left_gets_no_more_blocks(detect: DetectSpeech, call: Call) -> None:
    call.cancel()
    with pytest.raises(Cancelled):
        await hear(detect, call, noise(60))


async def test_a_deadline_ends_a_long_recording(
    detect: DetectSpeech, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes while the first of many blocks is judged: the others never are."""
    model = detect.models.choose("detect_speech", "", call)
    judged = handed_to(model, monkeypatch, lambda: setattr(call, "deadline", 0))
    with pytest.raises(Expired):
        await hear(detect, call, noise(60))
    assert len(judged) == 1


async def test_a_full_queue_refuses_the_beginning_but_not_the_rest(
    detect: DetectSpeech, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue fills up while a recording's first block is judged."""
    model = detect.models.choose("detect_speech", "", call)
    handed_to(model, monkeypatch, lambda: monkeypatch.setattr(model._pile, "_max_items", 0))
    assert times(await hear(detect, call, noise(9))) == []
    with pytest.raises(Overloaded):
        await hear(detect, Call("/test.Test/Other", pool=call.pool), noise(9))


async def test_a_card_that_is_wrong_says_what(
    detect: DetectSpeech, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = detect.models.choose("detect_speech", "", call)
    monkeypatch.setattr(model, "card", model.card.model_copy(update={"preprocessing": {"frame": 0}}))
    with pytest.raises(ModelFailed, match=r"silero-vad@1.*frame"):
        await hear(detect, call, silence(1))


@pytest.mark.parametrize("sizes", [[512], [1], [65_536, 1], [70_000, 3, 200_000], [2730] * 50, []])
async def test_pieces_follow_each_other_without_gap(sizes: list[int]) -> None:
    samples = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    found = list(pieces(np.split(samples, np.cumsum(sizes)[:-1]) if sizes else [], 65_536))
    assert all(len(piece) == 65_536 for piece in found[:-1])
    assert all(0 < len(piece) <= 65_536 for piece in found)
    np.testing.assert_array_equal(np.concatenate(found) if found else samples, samples)
