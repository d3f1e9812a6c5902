"""SpeechService.StreamingRecognize on the real models: what is said, while it is said, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from ortmesh.config import cpus
from ortmesh.errors import BadInput, NotFound
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.speech.v1.speech_pb2 import (
    Diarization,
    Phrase,
    RecognitionOptions,
    RecognizeRequest,
    Segment,
    StreamFormat,
    StreamingRecognizeConfig,
    StreamingRecognizeRequest,
    StreamingRecognizeResponse,
)
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.outgoing import MOST, Outgoing
from ortmesh_speech.recognize import Recognize
from ortmesh_speech.results import AT_ONCE, Results
from ortmesh_speech.streaming_recognize import StreamingRecognize
from tests.front.conftest import until
from tests.speech.music import band
from tests.speech.streams import S16_16K, all_of, cut, s16, sent, until_left
from tests.speech.voices import SENTENCES, audio, encode, noise, noisy, say, silence, word_errors
from tests.speech.watching import Batches, until_at_rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

Request = StreamingRecognizeRequest
Config = StreamingRecognizeConfig
Response = StreamingRecognizeResponse

PAUSES = (0.8, 0.7, 1.5, 0.9)
BATCHES = Batches()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(store: Store) -> AsyncIterator[Models]:
    only = ["silero-vad", "moonshine-tiny-en", "whisper-tiny-en"]
    async with Models(store, "speech", threads=cpus(), meter=BATCHES, only=only) as models:
        await models.until_loaded()
        yield models


@pytest.fixture
def recognize(models: Models) -> StreamingRecognize:
    return StreamingRecognize(models)


@pytest.fixture(scope="module")
def dialogue() -> Samples:
    """Three sentences, of two voices, with pauses around them."""
    parts = [silence(PAUSES[0])]
    for place, pause in enumerate(PAUSES[1:]):
        parts += [say(SENTENCES[place], seed=place % 2), silence(pause)]
    return np.concatenate(parts)


def messages(samples: Samples, config: Config | None = None, size: int = 3200) -> list[Request]:
    first = Config(format=S16_16K) if config is None else config
    return [StreamingRecognizeRequest(config=first), *(Request(audio=chunk) for chunk in cut(s16(samples), size))]


async def hear(recognize: StreamingRecognize, call: Call, requests: Sequence[Request]) -> list[Response]:
    return await all_of(recognize(sent(requests), call))


def results(answers: Sequence[Response]) -> list[Segment]:
    return [answer.result for answer in answers if answer.HasField("result")]


def text(answers: Sequence[Response]) -> str:
    return " ".join(result.transcript for result in results(answers))


def kinds(answers: Sequence[Response]) -> list[str]:
    return [str(answer.WhichOneof("response")) for answer in answers]


def seconds(time_: Duration) -> float:
    return time_.ToMilliseconds() / 1000


async def test_each_utterance_is_told_with_its_times(
    recognize: StreamingRecognize, call: Call, dialogue: Samples
) -> None:
    answers = await hear(recognize, call, messages(dialogue))
    assert kinds(answers)[0] == "models"
    assert kinds(answers)[-1] == "duration"
    assert (answers[0].models.model.name, answers[0].models.HasField("interim_model")) == ("whisper-tiny-en", False)
    assert seconds(answers[-1].duration) == pytest.approx(len(dialogue) / SAMPLE_RATE, abs=0.001)
    assert len(results(answers)) == 3
    at = PAUSES[0]
    for result, sentence, place in zip(results(answers), SENTENCES, range(3), strict=False):
        length = len(say(sentence, seed=place % 2)) / SAMPLE_RATE
        assert word_errors(sentence, result.transcript) <= 2
        assert seconds(result.start) == pytest.approx(at, abs=0.5)
        assert seconds(result.end) == pytest.approx(at + length, abs=0.6)
        assert 0.5 < result.confidence <= 1
        assert result.language == "en"
        at += length + PAUSES[place + 1]
    starts = [answer.speech_started for answer in answers if answer.HasField("speech_started")]
    assert starts == [result.start for result in results(answers)]


async def test_a_stream_is_heard_as_well_as_the_whole(
    recognize: StreamingRecognize, call: Call, dialogue: Samples
) -> None:
    spoken = " ".join(SENTENCES[:3])
    for samples in (dialogue, noisy(dialogue, 10)):
        whole = await Recognize(recognize.models)(RecognizeRequest(audio=audio(samples)), call)
        heard = text(await hear(recognize, call, messages(samples)))
        assert word_errors(spoken, heard) <= word_errors(spoken, whole.transcript) + 2


async def test_quiet_speech_is_heard_as_well_as_in_the_whole(recognize: StreamingRecognize, call: Call) -> None:
    """At 60 dB below full scale half of a word is as good as silent, and no pause for that."""
    spoken = SENTENCES[3:6]
    quiet = np.concatenate([np.append(say(sentence) * np.float32(0.01), silence(1)) for sentence in spoken])
    whole = await Recognize(recognize.models)(RecognizeRequest(audio=audio(quiet)), call)
    answers = await hear(recognize, call, messages(quiet))
    assert len(results(answers)) == len(spoken)
    assert word_errors(" ".join(spoken), text(answers)) <= word_errors(" ".join(spoken), whole.transcript) + 1


@pytest.mark.parametrize("size", [641, 100_000])
async def test_where_chunks_are_cut_is_not_heard(
    recognize: StreamingRecognize, call: Call, dialogue: Samples, size: int
) -> None:
    first = dialogue[: int(7 * SAMPLE_RATE)]
    one = results(await hear(recognize, call, messages(first, size=size)))
    other = results(await hear(recognize, call, messages(first)))
    assert [(each.transcript, each.start, each.end) for each in one] == [
        (each.transcript, each.start, each.end) for each in other
    ]


async def test_a_file_as_it_is_written(recognize: StreamingRecognize, call: Call, dialogue: Samples) -> None:
    content = encode(dialogue, SAMPLE_RATE, "OGG", "OPUS")
    config = Config(format=StreamFormat(container=True))
    answers = await hear(
        recognize, call, [Request(config=config), *(Request(audio=chunk) for chunk in cut(content, 500))]
    )
    assert word_errors(" ".join(SENTENCES[:3]), text(answers)) <= 4


@pytest.mark.parametrize(
    "samples",
    [silence(0), silence(1 / SAMPLE_RATE), silence(0.05), silence(20), noise(10, 0.05), band(10)],
    ids=["nothing", "one sample", "50 ms", "silence", "noise", "music"],
)
async def test_nobody_speaks(recognize: StreamingRecognize, call: Call, samples: Samples) -> None:
    answers = await hear(recognize, call, messages(samples, Config(format=S16_16K, interim_results=True)))
    assert kinds(answers) == ["models", "duration"]
    assert answers[-1].duration.ToMilliseconds() == round(1000 * len(samples) / SAMPLE_RATE)


async def test_half_close_finishes_what_was_said_the_last_word_included(
    recognize: StreamingRecognize, call: Call
) -> None:
    spoken = say(SENTENCES[4])
    loud = np.flatnonzero(np.abs(spoken) > 0.02)
    answers = await hear(recognize, call, messages(spoken[: loud[-1]]))
    assert word_errors(SENTENCES[4], text(answers)) == 0
    assert seconds(results(answers)[0].end) <= seconds(answers[-1].duration)


async def test_a_pause_of_minutes_harms_nothing(recognize: StreamingRecognize, call: Call) -> None:
    samples = np.concatenate([say(SENTENCES[4]), silence(150), say(SENTENCES[6])])
    answers = await hear(recognize, call, messages(samples, size=100_000))
    assert word_errors(f"{SENTENCES[4]} {SENTENCES[6]}", text(answers)) <= 1
    assert seconds(results(answers)[1].start) == pytest.approx(150 + len(say(SENTENCES[4])) / SAMPLE_RATE, abs=0.5)


async def test_who_never_pauses_is_cut_without_a_word_lost(recognize: StreamingRecognize, call: Call) -> None:
    """With an end of silence that no pause between the sentences reaches."""
    sentences = SENTENCES[:8]
    config = Config(format=S16_16K, end_silence=Duration(seconds=3))
    answers = await hear(recognize, call, messages(np.concatenate([say(each) for each in sentences]), config))
    assert len(results(answers)) == 2
    assert kinds(answers).count("speech_started") == 1
    assert word_errors(" ".join(sentences), text(answers)) <= 6


async def test_interim_results_grow_and_what_is_stable_stays(
    recognize: StreamingRecognize, call: Call, dialogue: Samples
) -> None:
    """The caller sends on once the last half second was told of."""
    config, told = Config(format=S16_16K, interim_results=True), asyncio.Semaphore(0)

    async def paced() -> AsyncIterator[Request]:
        yield Request(config=config)
        for place, chunk in enumerate(cut(s16(dialogue[: int(5.9 * SAMPLE_RATE)]), 16_000)):
            yield Request(audio=chunk)
            if 4 <= place <= 8:  # somebody speaks from 1.1 to 4.8 s
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.acquire(), 3)

    answers = []
    async for answer in recognize(paced(), call):
        answers.append(answer)
        if answer.HasField("interim"):
            told.release()
    assert answers[0].models.interim_model.name == "moonshine-tiny-en"
    found = [answer.interim for answer in answers if answer.HasField("interim")]
    assert len(found) >= 4
    before = ""
    for each in found:
        assert each.transcript.startswith(each.stable)
        assert each.stable.startswith(before)
        assert each.start == results(answers)[0].start
        before = each.stable
    assert [each.heard.ToMilliseconds() for each in found] == sorted(each.heard.ToMilliseconds() for each in found)
    assert word_errors(SENTENCES[0], found[-1].transcript) <= 6
    assert word_errors(SENTENCES[0], results(answers)[0].transcript) <= 2
    order = [kind for kind in kinds(answers) if kind != "interim"]
    assert order == ["models", "speech_started", "result", "duration"]
    assert kinds(answers).index("result") > max(place for place, kind in enumerate(kinds(answers)) if kind == "interim")


async def test_words_alternatives_and_phrases(recognize: StreamingRecognize, call: Call) -> None:
    options = RecognitionOptions(
        word_times=True, max_alternatives=2, phrases=[Phrase(text="quick")], language="en", initial_prompt="Foxes."
    )
    samples = np.concatenate([silence(2), say(SENTENCES[4]), silence(1)])
    (result,) = results(await hear(recognize, call, messages(samples, Config(format=S16_16K, options=options))))
    assert " ".join(word.text for word in result.words) == result.transcript
    times = [seconds(edge) for word in result.words for edge in (word.start, word.end)]
    assert times == sorted(times)
    assert seconds(result.start) - 0.2 <= times[0] <= times[-1] <= seconds(result.end) + 0.2
    assert 1 <= len(result.alternatives) <= 2


async def test_streams_at_once_share_batches_and_hear_only_themselves(
    recognize: StreamingRecognize, call: Call, dialogue: Samples
) -> None:
    several = [dialogue[: int(at * SAMPLE_RATE)] for at in (6, 6.1, 6.2, 6.3)]
    config = Config(format=S16_16K, interim_results=True)
    alone = [text(await hear(recognize, call, messages(samples, config))) for samples in several]
    BATCHES.clear()
    together = await asyncio.gather(*(hear(recognize, call, messages(samples, config)) for samples in several))
    assert [text(answers) for answers in together] == alone
    await until(lambda: sum(BATCHES.of("whisper-tiny-en")) >= len(several))
    assert max(BATCHES.of("whisper-tiny-en")) > 1
    assert max(BATCHES.of("silero-vad")) > 1


GOOD = Config(format=S16_16K)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (Config(), "config.format"),
        (Config(format=S16_16K, beam_width=9), "config.beam_width"),
        (Config(format=S16_16K, beam_width=-1), "config.beam_width"),
        (Config(format=S16_16K, end_silence=Duration(nanos=50_000_000)), "config.end_silence"),
        (Config(format=S16_16K, end_silence=Duration(seconds=6)), "config.end_silence"),
        (Config(format=S16_16K, options=RecognitionOptions(max_alternatives=8)), "config.options.max_alternatives"),
        (Config(format=S16_16K, options=RecognitionOptions(language="tlh")), "config.options.language"),
        (Config(format=S16_16K, options=RecognitionOptions(diarization=Diarization())), "config.options.diarization"),
        (Config(format=S16_16K, model="silero-vad"), "config.model"),
        (Config(format=S16_16K, interim_results=True, interim_model="whisper-tiny-en"), "config.interim_model"),
    ],
)
async def test_wrong_configurations_name_their_field(
    recognize: StreamingRecognize, call: Call, config: Config, field: str
) -> None:
    with pytest.raises(BadInput) as caught:
        await hear(recognize, call, [Request(config=config)])
    assert caught.value.violations[0].field == field


async def test_wrong_streams_are_refused_while_they_run(
    recognize: StreamingRecognize, call: Call, dialogue: Samples
) -> None:
    before = asyncio.all_tasks()
    begun = messages(dialogue[: 3 * SAMPLE_RATE], Config(format=S16_16K, interim_results=True))
    with pytest.raises(BadInput, match="sent again"):
        await hear(recognize, call, [*begun, Request(config=GOOD)])
    with pytest.raises(BadInput, match="at most"):
        await hear(recognize, call, [*begun, Request(audio=bytes((1 << 20) + 1))])
    with pytest.raises(NotFound, match="whisper-tiny-en"):
        await hear(recognize, call, [Request(config=Config(format=S16_16K, model="whisper-tiny"))])
    await until_at_rest(recognize.models, call, before)


async def test_a_mesh_without_a_model_that_detects_speech_answers_no_streams(store: Store, call: Call) -> None:
    """By level alone a stream in noise would have no end of an utterance."""
    async with Models(store, "speech", threads=cpus(), meter=BATCHES, only=["moonshine-tiny-en"]) as models:
        await models.until_loaded()
        with pytest.raises(NotFound, match="detect"):
            await hear(StreamingRecognize(models), call, messages(silence(1)))


async def test_streams_that_are_left_at_any_moment_leave_nothing(
    recognize: StreamingRecognize, call: Call, dialogue: Samples
) -> None:
    random, before = np.random.default_rng(2), asyncio.all_tasks()
    config = Config(format=S16_16K, interim_results=True)
    for _ in range(12):
        own = Call("/test.Test/Test", pool=call.pool)
        length = int(random.integers(1, len(dialogue)))
        answers = recognize(until_left(messages(dialogue[:length], config)), own)
        reader = asyncio.create_task(all_of(answers))
        await asyncio.wait((reader,), timeout=float(random.random()) * 0.3)
        own.cancel()
        reader.cancel()
        await asyncio.wait((reader,))
        own.end()
    await until_at_rest(recognize.models, call, before)
    heard = text(await hear(recognize, call, messages(dialogue[: int(5.9 * SAMPLE_RATE)])))
    assert word_errors(SENTENCES[0], heard) <= 2


async def test_a_caller_who_does_not_read_is_not_listened_to_for_long(
    recognize: StreamingRecognize, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made for it is bounded, and so is the audio that is taken; when it reads on, more is."""
    word = np.concatenate([say("Stop!"), silence(0.6)])
    before, taken = asyncio.all_tasks(), 0
    waiting: list[Response] = []
    made: list[Results] = []

    class Watched(Outgoing[Response]):
        async def put(self, message: Response) -> None:
            waiting.append(message)
            await super().put(message)
            waiting.remove(message)

    class Seen(Results):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            made.append(self)

    def held_back() -> bool:
        """Before it tells that somebody speaks, or before it adds an utterance to those that wait to be told: one that
        is being told, as many as may wait, and its own."""
        return "speech_started" in kinds(waiting) or (bool(waiting) and made[0].untold == AT_ONCE + 2)

    async def endless() -> AsyncIterator[Request]:
        nonlocal taken
        yield Request(config=GOOD)
        while True:
            taken += 1
            yield Request(audio=s16(word))

    monkeypatch.setattr("ortmesh_speech.dictation.Outgoing", Watched)
    monkeypatch.setattr("ortmesh_speech.dictation.Results", Seen)
    answers = recognize(endless(), call)
    read = [await anext(answers) for _ in range(2)]
    assert kinds(read) == ["models", "speech_started"], "who has read the first only is not listened to"
    await until(held_back)
    held = taken
    assert held <= 2 * MOST
    await until(lambda: not call.pool.bytes)
    assert taken == held
    for _ in range(MOST):
        await anext(answers)
    await until(lambda: taken > held)
    await answers.aclose()  # type: ignore[attr-defined]
    await until_at_rest(recognize.models, call, before)
