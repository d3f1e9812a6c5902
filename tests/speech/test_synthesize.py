"""SpeechService.Synthesize on Hibari: what it says is heard again, in every form, and nothing is left behind."""

from __future__ import annotations

import asyncio
import io
import itertools
import math
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ortmesh.client import violations
from ortmesh.config import cpus
from ortmesh.errors import BadInput, Cancelled, Expired, ModelFailed, NotFound
from ortmesh.front.call import Call
from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.methods import bind, generated
from ortmesh.front.server import Front
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.speech.v1 import speech_pb2
from ortmesh.speech.v1.speech_pb2 import Audio, RecognizeRequest, SynthesizeRequest, SynthesizeResponse
from ortmesh.speech.v1.speech_pb2_grpc import SpeechServiceStub
from ortmesh_speech.audio import Samples
from ortmesh_speech.recognize import Recognize
from ortmesh_speech.synthesize import MAX_CHARACTERS, Synthesize
from tests.front.conftest import Recorder, until
from tests.speech.voices import word_errors
from tests.speech.watching import Batches, until_at_rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

RATE = 24_000
STORY = " ".join(f"This is sentence number {number} of a story that goes on." for number in range(1, 41))
RUNS = Batches()
"""Each run of a model."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def synthesize(store: Store) -> AsyncIterator[Synthesize]:
    """The task on the real models, loaded once for all tests here."""
    only = ["hibari", "hibari-spelling", "whisper-tiny-en"]
    models = Models(store, "speech", threads=cpus(), meter=RUNS, only=only)
    task = Synthesize(models)
    async with models:
        await models.until_loaded()
        assert all(model.state == "READY" for model in models.list()), [m.state_reason for m in models.list()]
        yield task


@pytest.fixture
def recognize(synthesize: Synthesize) -> Recognize:
    return Recognize(synthesize.models)


async def say(synthesize: Synthesize, call: Call, text: str, **options: Any) -> list[SynthesizeResponse]:
    return [answer async for answer in synthesize(SynthesizeRequest(text=text, **options), call)]


def content_of(answers: list[SynthesizeResponse]) -> bytes:
    return b"".join(answer.audio for answer in answers)


def samples_of(answers: list[SynthesizeResponse]) -> Samples:
    return soundfile.read(io.BytesIO(content_of(answers)), dtype="float32")[0]


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("The quick brown fox jumps over the lazy dog.", ""),
        ("Most people forget that a good night of sleep improves memory and mood.", ""),
        (
            "The meeting is on 2026-11-26, not on 11/27/2026.",
            "The meeting is on November 26, 2026, not on November 27, 2026.",
        ),
        ("In 1984 there were 1,234 people in the town.", ""),
        ("The MP3 file is 3.2 GB, i.e. much too large.", "The MP3 file is 3.2 gigabytes that is much too large."),
        ("The temperature fell to -5°C overnight.", "The temperature fell to minus 5 degrees Celsius overnight."),
        ("Henry VIII had six wives & many horses.", "Henry VIII had six wives and many horses."),
    ],
    ids=lambda text: text[:20],
)
async def test_what_is_said_is_heard_again(
    synthesize: Synthesize, recognize: Recognize, call: Call, text: str, heard: str
) -> None:
    spoken = content_of(await say(synthesize, call, text))
    answer = await recognize(RecognizeRequest(audio=Audio(encoded=spoken)), call)
    transcript = answer.transcript.replace("GB", " gigabytes").replace(" th,", ",")
    assert word_errors(heard or text, transcript) <= 1


async def test_the_first_message_names_the_model_and_sentences_are_marked(synthesize: Synthesize, call: Call) -> None:
    text = "Dr. Smith said “hello”.  \n\n*** \n\nThen he left, at 5."
    first, *others = await say(synthesize, call, text, format=speech_pb2.AUDIO_FORMAT_S16LE)
    assert (first.model.name, first.model.version, first.sample_rate_hertz) == ("hibari", "1", RATE)
    assert not any(other.HasField("model") or other.sample_rate_hertz for other in others)
    marks = [answer.sentence for answer in (first, *others) if answer.sentence]
    assert marks == ["Dr. Smith said “hello”.", "Then he left, at 5."]
    assert first.sentence
    assert first.audio


async def test_messages_are_small_and_the_first_one_is_audio(synthesize: Synthesize, call: Call) -> None:
    for form in (speech_pb2.AUDIO_FORMAT_WAV, speech_pb2.AUDIO_FORMAT_OGG_OPUS):
        answers = await say(synthesize, call, STORY[:200], format=form)
        assert answers[0].sentence
        assert len(answers[0].audio) > 500
        assert max(len(answer.audio) for answer in answers) <= 64 * 1024


async def test_every_form_has_the_same_speech(synthesize: Synthesize, call: Call) -> None:
    text = "Good morning. It is a beautiful day."
    wav = samples_of(await say(synthesize, call, text))
    ogg = samples_of(await say(synthesize, call, text, format=speech_pb2.AUDIO_FORMAT_OGG_OPUS))
    raw = content_of(await say(synthesize, call, text, format=speech_pb2.AUDIO_FORMAT_S16LE))
    assert np.array_equal(np.frombuffer(raw, "<i2"), np.rint(wav * 32768).astype(np.int16))
    assert len(ogg) == len(wav)
    assert float(np.corrcoef(np.abs(ogg), np.abs(wav))[0, 1]) > 0.8


async def test_a_seed_speaks_in_the_same_way_alone_and_among_others(synthesize: Synthesize, call: Call) -> None:
    text = "The same seed, the same voice. To the last bit."
    alone = content_of(await say(synthesize, call, text, seed=42))
    calls = [Call(f"/test.Test/{number}", pool=call.pool) for number in range(5)]
    together = await asyncio.gather(
        *(say(synthesize, each, text, seed=42 if number % 2 == 0 else number) for number, each in enumerate(calls))
    )
    assert [content_of(answers) == alone for answers in together] == [True, False, True, False, True]
    assert content_of(await say(synthesize, call, text, seed=-1)) != alone
    own = content_of(await say(synthesize, call, text))
    assert own == content_of(await say(synthesize, call, text)) != alone
    for each in calls:
        each.end()


async def test_nothing_but_a_moment_of_silence_is_at_either_end(synthesize: Synthesize, call: Call) -> None:
    samples = samples_of(await say(synthesize, call, "Good morning.\n\nGood night."))
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    assert loud[0] < RATE / 10
    assert len(samples) - loud[-1] < RATE / 5
    assert np.diff(loud).max() > 0.8 * RATE  # between the paragraphs


async def test_speed_changes_how_long_it_takes(synthesize: Synthesize, call: Call) -> None:
    text = "How fast can this sentence be read aloud?"
    slow, usual, fast = [len(samples_of(await say(synthesize, call, text, speed=speed))) for speed in (0.5, 0, 2)]
    assert 1.7 < slow / usual < 2.3
    assert 0.4 < fast / usual < 0.65


@pytest.mark.parametrize(
    ("request_", "field", "told"),
    [
        (SynthesizeRequest(), "text", "not empty"),
        (SynthesizeRequest(text=" \n "), "text", "not empty"),
        (SynthesizeRequest(text="a" * (MAX_CHARACTERS + 1)), "text", "100001 characters: expected at most 100000"),
        (SynthesizeRequest(text="你好 *** 🈳"), "text", "nothing that can be said"),
        (SynthesizeRequest(text="。" * 5_000), "text", "nothing that can be said"),
        (SynthesizeRequest(text="a", speed=math.nan), "speed", "nan: expected 0.5 to 2"),
        (SynthesizeRequest(text="a", speed=-1), "speed", "-1: expected 0.5 to 2"),
        (SynthesizeRequest(text="a", speed=2.01), "speed", "2.01: expected"),
        (SynthesizeRequest(text="a", speed=math.inf), "speed", "inf: expected"),
        (SynthesizeRequest(text="a", voice="emma"), "voice", "'emma' is none of the voices of hibari: heart"),
        (SynthesizeRequest(text="a", format=9), "format", "9 is none: expected AUDIO_FORMAT_WAV"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_wrong_requests_name_their_field(
    synthesize: Synthesize, call: Call, request_: SynthesizeRequest, field: str, told: str
) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        await anext(synthesize(request_, call))
    assert caught.value.violations[0].field == field


async def test_an_unknown_model_and_a_known_voice(synthesize: Synthesize, call: Call) -> None:
    with pytest.raises(NotFound, match="hibari"):
        await anext(synthesize(SynthesizeRequest(model="hibary", text="a"), call))
    assert await say(synthesize, call, "Hello.", voice="heart", model="hibari@1")


async def test_a_card_that_is_wrong_says_what(
    synthesize: Synthesize, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = synthesize.models.choose("synthesize", "", call)
    good = model.card.preprocessing
    for change, named in (({"speller": "none"}, "speller: .*none"), ({"lexicon": "no.json"}, "'no.json'.*missing")):
        monkeypatch.setattr(model, "card", model.card.model_copy(update={"preprocessing": {**good, **change}}))
        with pytest.raises(ModelFailed, match=named):
            await say(synthesize, call, "Hello.")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
async def test_any_text_is_spoken_or_refused(synthesize: Synthesize, call: Call, text: str) -> None:
    try:
        answers, refused = await say(synthesize, call, text, speed=2), None
    except BadInput as error:
        answers, refused = [], error
    if refused is None:
        assert len(samples_of(answers)) > RATE / 20
    else:
        assert refused.violations[0].field == "text"


async def test_a_word_without_an_end_is_spoken_in_parts(synthesize: Synthesize, call: Call) -> None:
    assert len(samples_of(await say(synthesize, call, "donau" * 400, speed=2))) > 20 * RATE


async def test_a_reader_that_waits_holds_the_work_back(synthesize: Synthesize, call: Call) -> None:
    """Of forty sentences two are said: the one that is read, and the next."""
    stream, before = synthesize(SynthesizeRequest(text=STORY), call), asyncio.all_tasks()
    RUNS.clear()
    async with aclosing(stream):  # type: ignore[type-var]
        await anext(stream)
        await until(lambda: len(RUNS) >= 2)
        await until_at_rest(synthesize.models, call, before)
        assert len(RUNS) <= 3  # one of another test's may have been under way


async def test_one_who_leaves_and_one_whose_time_is_up_get_no_more(synthesize: Synthesize, call: Call) -> None:
    ends = ((Call.cancel, Cancelled), (lambda each: setattr(each, "deadline", 0), Expired))
    for (end, error), form in itertools.product(ends, speech_pb2.AudioFormat.values()):
        leaver = Call("/test.Test/Leaver", pool=call.pool)
        stream = synthesize(SynthesizeRequest(text=STORY, format=form), leaver)
        await anext(stream)
        end(leaver)
        with pytest.raises(error):
            async for _ in stream:
                pass
        leaver.end()
    RUNS.clear()
    await say(synthesize, call, "The others are served.")
    assert len(RUNS) <= 2  # one may have been under way


@pytest_asyncio.fixture(params=["native", "grpcio"], loop_scope="module")
async def front(request: pytest.FixtureRequest, synthesize: Synthesize) -> AsyncIterator[Front]:
    """The task as callers reach it, on both adapters; after each test nothing is in flight."""
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as folder:
        front = Front(
            bind("ortmesh.speech.v1.SpeechService", {"Synthesize": synthesize}, messages=generated(speech_pb2)),
            target=f"unix:{folder}/front" if request.param == "native" else "127.0.0.1:0",
            adapter=request.param,
            health=Health(),
            telemetry=Recorder(),
            limits=FrontLimits(drain_seconds=0.0, pool_threads=2, stall_seconds=0.3),
        )
        await front.start()
        yield front
        await front.drain(5.0)
    admission = front._dispatcher.admission
    assert (admission.calls, admission.streams, admission.bytes) == (0, 0, 0)
    assert [model._leases for model in synthesize.models.list()] == [0, 0, 0]


async def test_a_caller_who_leaves_frees_what_it_held(front: Front, synthesize: Synthesize, call: Call) -> None:
    RUNS.clear()
    async with grpc.aio.insecure_channel(front.address) as channel:
        stream = SpeechServiceStub(channel).Synthesize(SynthesizeRequest(text=STORY))
        await stream.read()
        stream.cancel()
        await until(lambda: front._dispatcher.admission.streams == 0)
    await say(synthesize, call, "The others are served.")
    assert len(RUNS) <= 4  # two of the leaver's at most, one that was under way, and this


async def test_a_reader_that_stalls_is_left_and_others_are_served(front: Front) -> None:
    RUNS.clear()
    async with grpc.aio.insecure_channel(front.address) as channel:
        speech = SpeechServiceStub(channel)
        stalled = speech.Synthesize(SynthesizeRequest(text=STORY))
        await stalled.read()
        answers = [answer async for answer in speech.Synthesize(SynthesizeRequest(text="The others are served."))]
        assert len(samples_of(answers)) > RATE
        await until(lambda: not front._dispatcher._running)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(stalled)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await until(lambda: front._dispatcher.admission.streams == 0)
    assert len(RUNS) < 40


async def read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def test_refusals_arrive_with_their_details(front: Front) -> None:
    async with grpc.aio.insecure_channel(front.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await SpeechServiceStub(channel).Synthesize(SynthesizeRequest(text="a", voice="x")).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(caught.value) == [("voice", "'x' is none of the voices of hibari: heart")]
