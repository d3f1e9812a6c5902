"""SpeechService.Recognize on Whisper: word for word, at the seams, and where nobody speaks."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
import soxr

from ortmesh.config import cpus
from ortmesh.errors import BadInput, Cancelled, Expired, ModelFailed, NotFound, OutOfRange, Overloaded
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from ortmesh.speech.v1.speech_pb2 import Audio, RecognizeRequest, RecognizeResponse
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.cutter import Cutter
from ortmesh_speech.recognize import Recognize
from ortmesh_speech.window import Window
from tests.speech.music import band, chords, drums, hum, lead, melody, mixed
from tests.speech.voices import HEADER_BYTES, SENTENCES, audio, encode, noise, over_an_hour, say, silence, word_errors
from tests.speech.watching import handed_to

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recognize(store: Store) -> AsyncIterator[Recognize]:
    """The task on the real model, loaded once for all tests here."""
    async with Models(store, "speech", threads=cpus(), meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        assert all(model.state == "READY" for model in models.list()), [m.state_reason for m in models.list()]
        yield Recognize(models)


async def hear(recognize: Recognize, call: Call, samples: Samples, beams: int = 0) -> RecognizeResponse:
    return await recognize(RecognizeRequest(audio=audio(samples), beam_width=beams), call)


@pytest.mark.parametrize("beams", [0, 1, 8])
async def test_a_sentence_word_for_word(recognize: Recognize, call: Call, beams: int) -> None:
    answer = await hear(recognize, call, say(SENTENCES[3]), beams)
    assert answer.transcript == SENTENCES[3]
    assert (answer.model.name, answer.model.version) == ("whisper-tiny-en", "1")
    (segment,) = answer.segments
    assert segment.transcript == SENTENCES[3]
    assert 0.7 < segment.confidence <= 1


async def test_times_are_those_of_the_recording(recognize: Recognize, call: Call) -> None:
    spoken = say(SENTENCES[4])
    answer = await hear(recognize, call, np.concatenate([silence(4), spoken, silence(3)]))
    (segment,) = answer.segments
    length = len(spoken) / SAMPLE_RATE
    assert segment.start.ToTimedelta().total_seconds() == pytest.approx(4, abs=0.4)
    assert segment.end.ToTimedelta().total_seconds() == pytest.approx(4 + length, abs=0.6)
    assert answer.duration.ToTimedelta().total_seconds() == pytest.approx(7 + length, abs=0.01)


@pytest.mark.parametrize("seconds", [17.0, 19.5, 21.0, 23.0, 35.0])
async def test_no_word_is_lost_or_doubled_around_a_window(recognize: Recognize, call: Call, seconds: float) -> None:
    """Whole sentences up to about that length; pauses between them are 0.2 to 0.5 s."""
    text, samples = passage(seconds)
    answer = await hear(recognize, call, samples, beams=1)
    assert word_errors(text, answer.transcript) <= 1
    assert len(answer.segments) >= len(samples) // (20 * SAMPLE_RATE)


@pytest.mark.parametrize("shift", [0.0, 1.3])
async def test_a_long_passage_word_for_word(recognize: Recognize, call: Call, shift: float) -> None:
    text, samples = passage(70)
    answer = await hear(recognize, call, np.concatenate([silence(shift), samples]))
    assert word_errors(text, answer.transcript) <= 2
    assert len(answer.segments) >= 3
    edges = [edge.ToMilliseconds() for segment in answer.segments for edge in (segment.start, segment.end)]
    assert edges == sorted(edges)
    assert answer.transcript == " ".join(segment.transcript for segment in answer.segments)


async def test_speech_in_noise(recognize: Recognize, call: Call) -> None:
    """At 10 dB."""
    spoken = say(SENTENCES[5])
    level = float(np.sqrt(np.mean(spoken**2) / 10))
    answer = await hear(recognize, call, spoken + noise(60, level=level)[: len(spoken)])
    assert word_errors(SENTENCES[5], answer.transcript) == 0


@pytest.mark.parametrize(
    "samples",
    [silence(4), silence(65), noise(2, 2e-5), noise(9, 0.002), noise(9, 0.2), noise(28, 0.05)],
    ids=["4 s of silence", "65 s of silence", "16 bits", "soft noise", "loud noise", "long noise"],
)
async def test_nobody_speaks(recognize: Recognize, call: Call, samples: Samples) -> None:
    answer = await hear(recognize, call, samples)
    assert (answer.transcript, len(answer.segments)) == ("", 0)
    assert answer.duration.ToTimedelta().total_seconds() == pytest.approx(len(samples) / SAMPLE_RATE, abs=0.01)


@pytest.mark.parametrize(
    "sound",
    [hum(50, 12), hum(60, 12), melody(12), chords(12), lead(12), drums(12), band(40)],
    ids=["50 Hz", "60 Hz", "melody", "chords", "lead", "drums", "band"],
)
async def test_hum_and_music_are_no_speech(recognize: Recognize, call: Call, sound: Samples) -> None:
    assert (await hear(recognize, call, sound)).transcript == ""


@pytest.mark.parametrize("sound", [melody(8), band(8), hum(50, 8)], ids=["melody", "band", "hum"])
async def test_speech_over_music_is_heard(recognize: Recognize, call: Call, sound: Samples) -> None:
    answer = await hear(recognize, call, mixed(say(SENTENCES[3]), sound, 10))
    assert word_errors(SENTENCES[3], answer.transcript) <= 1


@pytest.mark.parametrize("decibels", [-20, -30])
async def test_quiet_speech_is_heard(recognize: Recognize, call: Call, decibels: int) -> None:
    """At 47 and 57 dB below full scale."""
    quiet = say(SENTENCES[3]) * np.float32(10 ** (decibels / 20))
    assert word_errors(SENTENCES[3], (await hear(recognize, call, quiet)).transcript) <= 1


async def test_a_word_after_a_minute_of_silence(recognize: Recognize, call: Call) -> None:
    samples = np.concatenate([silence(62), say(SENTENCES[4]), silence(1)])
    answer = await hear(recognize, call, samples)
    assert word_errors(SENTENCES[4], answer.transcript) == 0
    assert answer.segments[0].start.ToTimedelta().total_seconds() == pytest.approx(62, abs=0.4)


async def test_a_fifth_of_a_second(recognize: Recognize, call: Call) -> None:
    """Too little to be sure of a word, enough for an answer."""
    answer = await hear(recognize, call, say(SENTENCES[4])[8000:11_200])
    assert answer.duration.ToTimedelta().total_seconds() == pytest.approx(0.2)
    assert len(answer.transcript.split()) <= 2


@pytest.mark.parametrize(
    ("rate", "channels", "container", "coding"),
    [
        (16_000, 1, "WAV", "PCM_U8"),
        (8_000, 1, "WAV", "ULAW"),
        (44_100, 8, "WAV", "PCM_24"),
        (96_000, 2, "FLAC", "PCM_24"),
        (48_000, 1, "OGG", "OPUS"),
        (44_100, 2, "MP3", "MPEG_LAYER_III"),
    ],
)
async def test_recordings_as_people_send_them(
    recognize: Recognize, call: Call, rate: int, channels: int, container: str, coding: str
) -> None:
    spoken = soxr.resample(say(SENTENCES[1]), SAMPLE_RATE, rate)
    many = np.stack([spoken] * channels, axis=1)
    answer = await recognize(RecognizeRequest(audio=audio(many, rate, container, coding)), call)
    assert word_errors(SENTENCES[1], answer.transcript) == 0


async def test_a_file_that_was_cut_off(recognize: Recognize, call: Call) -> None:
    """What is there is recognized, and the duration says how much that was."""
    content = encode(np.concatenate([say(SENTENCES[4]), say(SENTENCES[1])]), container="WAV", coding="PCM_16")
    kept = 44 + 2 * (len(say(SENTENCES[4])) + 1600)
    answer = await recognize(RecognizeRequest(audio=Audio(encoded=content[:kept])), call)
    assert word_errors(SENTENCES[4], answer.transcript) <= 1
    assert answer.duration.ToTimedelta().total_seconds() == pytest.approx(len(say(SENTENCES[4])) / 16_000 + 0.1, 0.01)


async def test_longer_than_an_hour_is_refused_at_once(recognize: Recognize, call: Call) -> None:
    """By its header: the rest is not there."""
    with pytest.raises(OutOfRange) as caught:
        await recognize(RecognizeRequest(audio=Audio(encoded=over_an_hour()[:HEADER_BYTES])), call)
    assert caught.value.violations[0].field == "audio.encoded"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (RecognizeRequest(), "audio"),
        (RecognizeRequest(audio=Audio(encoded=b"no audio at all")), "audio.encoded"),
        (RecognizeRequest(audio=audio(np.empty(0), container="WAV")), "audio.encoded"),
        (RecognizeRequest(audio=audio(silence(1)), beam_width=9), "beam_width"),
        (RecognizeRequest(audio=audio(silence(1)), beam_width=-1), "beam_width"),
    ],
    ids=["nothing", "not audio", "no samples", "nine beams", "minus one beam"],
)
async def test_wrong_requests_name_their_field(
    recognize: Recognize, call: Call, request_: RecognizeRequest, field: str
) -> None:
    with pytest.raises(BadInput) as caught:
        await recognize(request_, call)
    assert caught.value.violations[0].field == field


async def test_an_unknown_model(recognize: Recognize, call: Call) -> None:
    with pytest.raises(NotFound, match="whisper-tiny-en"):
        await recognize(RecognizeRequest(model="whisper-tiny", audio=audio(silence(1))), call)


async def test_a_caller_who_left_gets_no_more_windows(recognize: Recognize, call: Call) -> None:
    call.cancel()
    with pytest.raises(Cancelled):
        await hear(recognize, call, noise(60))


async def test_a_deadline_ends_a_long_recording(
    recognize: Recognize, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes while the first of many windows is recognized: the others never are."""
    model = recognize.models.choose("recognize", "", call)
    monkeypatch.setattr("ortmesh_speech.recognize.AT_ONCE", 1)  # else the second may be on its way when it passes
    recognized = handed_to(model, monkeypatch, lambda: setattr(call, "deadline", 0))
    with pytest.raises(Expired):
        await hear(recognize, call, passage(70)[1])
    assert len(recognized) == 1


async def test_a_full_queue_refuses_the_beginning_but_not_the_rest(
    recognize: Recognize, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue fills up while a recording's first window is recognized."""
    model = recognize.models.choose("recognize", "", call)
    text, samples = passage(35)
    monkeypatch.setattr("ortmesh_speech.recognize.AT_ONCE", 1)
    handed_to(model, monkeypatch, lambda: monkeypatch.setattr(model._pile, "_max_items", 0))
    answer = await hear(recognize, call, samples, beams=1)
    assert word_errors(text, answer.transcript) <= 1
    with pytest.raises(Overloaded):
        await hear(recognize, Call("/test.Test/Other", pool=call.pool), say(SENTENCES[4]))


async def test_the_last_windows_are_cut_in_the_pool_too(
    recognize: Recognize, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    rest = Cutter.rest

    def watched(cutter: Cutter, seconds: float) -> list[Window]:
        threads.append(threading.current_thread().name)
        return rest(cutter, seconds)

    monkeypatch.setattr(Cutter, "rest", watched)
    assert (await hear(recognize, call, silence(1))).transcript == ""
    assert [name.startswith("ortmesh-pool") for name in threads] == [True]


async def test_without_a_model_that_detects_speech_what_is_not_silent_is_heard(
    recognize: Recognize, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ortmesh_speech.listening.detector_of", lambda *_: None)
    text, samples = passage(35)
    answer = await hear(recognize, call, np.concatenate([silence(3), samples, silence(40)]))
    assert word_errors(text, answer.transcript) <= 1
    assert answer.segments[0].start.ToTimedelta().total_seconds() == pytest.approx(3, abs=0.4)
    assert (await hear(recognize, call, noise(9, 0.1))).transcript == ""


async def test_a_card_that_is_wrong_says_what(
    recognize: Recognize, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = recognize.models.choose("recognize", "", call)
    for preprocessing, named in (({"beams": 9}, "beams"), ({"tokenizer": "none.json"}, "'none.json'.*missing")):
        monkeypatch.setattr(model, "card", model.card.model_copy(update={"preprocessing": preprocessing}))
        with pytest.raises(ModelFailed, match=named):
            await hear(recognize, call, silence(1))


def passage(seconds: float) -> tuple[str, Samples]:
    """Sentences until the next one would exceed a length, each spoken alone, with pauses between them."""
    texts: list[str] = []
    parts: list[Samples] = []
    for number in range(100):
        sentence = SENTENCES[number % len(SENTENCES)]
        spoken = [say(sentence), silence((0.2, 0.35, 0.5)[number % 3])]
        if sum(map(len, parts + spoken)) > seconds * SAMPLE_RATE:
            break
        texts.append(sentence)
        parts += spoken
    return " ".join(texts), np.concatenate(parts)
