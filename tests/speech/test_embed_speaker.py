"""SpeechService.EmbedSpeaker on the default model: one voice is alike, whatever it says; others are not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
import soxr

from ortmesh.common.v1 import common_pb2
from ortmesh.config import cpus
from ortmesh.errors import BadInput, Cancelled, Expired, ModelFailed, NoSpeech, NotFound, OutOfRange
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import Array, NoMeter
from ortmesh.serving.warmup import Mode
from ortmesh.speech.v1.speech_pb2 import Audio, EmbedSpeakerRequest, EmbedSpeakerResponse
from ortmesh_speech import embed_speaker, speech_only
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.embed_speaker import EmbedSpeaker, voice_of
from ortmesh_speech.speech_only import louder
from tests.speech.music import hum
from tests.speech.throats import THROATS, speak
from tests.speech.voices import HEADER_BYTES, SENTENCES, audio, noise, over_an_hour, say, silence
from tests.speech.watching import handed_to

pytestmark = pytest.mark.asyncio(loop_scope="module")

TALK = (SENTENCES[0], SENTENCES[1])
OTHER_TALK = (SENTENCES[6], SENTENCES[7])


async def loaded(store: Store, *names: str) -> AsyncIterator[EmbedSpeaker]:
    async with Models(store, "speech", threads=cpus(), meter=lambda *_: NoMeter(), only=names) as models:
        task = EmbedSpeaker(models)
        await models.until_loaded()
        assert all(model.state == "READY" for model in models.list()), [m.state_reason for m in models.list()]
        yield task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embed(store: Store) -> AsyncIterator[EmbedSpeaker]:
    """The task on the real models, loaded once for all tests here."""
    async for task in loaded(store, "resemblyzer", "silero-vad"):
        yield task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def by_level(store: Store) -> AsyncIterator[EmbedSpeaker]:
    """The same in a mesh without a model that detects speech."""
    async for task in loaded(store, "resemblyzer"):
        yield task


async def hear(embed: EmbedSpeaker, call: Call, samples: Samples) -> EmbedSpeakerResponse:
    return await embed(EmbedSpeakerRequest(audio=audio(samples)), call)


async def voice(embed: EmbedSpeaker, call: Call, samples: Samples) -> Array:
    return np.array((await hear(embed, call, samples)).embedding.values)


def seconds(response: EmbedSpeakerResponse) -> tuple[float, float]:
    return response.speech.ToMilliseconds() / 1000, response.duration.ToMilliseconds() / 1000


@pytest.mark.parametrize("throat", THROATS)
async def test_a_voice_is_alike_in_whatever_it_says_and_unlike_others(
    embed: EmbedSpeaker, call: Call, throat: str
) -> None:
    one, same = [await voice(embed, call, speak(throat, *texts)) for texts in (TALK, OTHER_TALK)]
    others = [await voice(embed, call, speak(other, *OTHER_TALK)) for other in THROATS if other != throat]
    assert one @ same > 0.9
    assert max(one @ other for other in others) < 0.8


async def test_a_voice_is_the_one_that_resemblyzer_computes(embed: EmbedSpeaker, call: Call) -> None:
    """The largest of its 256 numbers, by its own code on the same samples; 122 are 0."""
    model = embed.models.choose("embed_speaker", "", call)
    vector = await voice_of(say(SENTENCES[0]), model, call)
    largest = {45: 0.2468, 10: 0.2256, 30: 0.2219, 180: 0.2112, 78: 0.2054, 148: 0.2037, 199: 0.1763, 197: 0.1622}
    assert vector.shape == (256,)
    assert {int(place) for place in np.argsort(-vector)[:8]} == set(largest)
    assert [vector[place] for place in largest] == pytest.approx(list(largest.values()), abs=2e-3)
    assert np.count_nonzero(vector < 1e-6) == pytest.approx(122, abs=3)


async def test_an_answer_says_of_what_it_was_made(embed: EmbedSpeaker, call: Call) -> None:
    spoken = say(SENTENCES[4])
    answer = await hear(embed, call, np.concatenate([silence(3), spoken, silence(2)]))
    speech, duration = seconds(answer)
    assert (answer.model.name, answer.model.version) == ("resemblyzer", "1")
    assert (answer.embedding.dimension, answer.embedding.normalized) == (256, True)
    assert np.linalg.norm(answer.embedding.values) == pytest.approx(1, abs=1e-5)
    assert speech == pytest.approx(len(spoken) / SAMPLE_RATE - 0.5, abs=0.4), "the sample is quiet at both ends"
    assert duration == pytest.approx(5 + len(spoken) / SAMPLE_RATE, abs=0.001)


async def test_silence_around_a_voice_and_its_loudness_do_not_count(embed: EmbedSpeaker, call: Call) -> None:
    spoken = speak("own", *TALK)
    alone = await voice(embed, call, spoken)
    surrounded = await voice(embed, call, np.concatenate([silence(30), spoken, silence(30)]))
    assert alone @ surrounded > 0.99
    assert alone @ await voice(embed, call, spoken * 0.03) > 0.94


@pytest.mark.parametrize(
    ("rate", "channels", "container", "coding"),
    [(8_000, 1, "WAV", "ULAW"), (44_100, 2, "MP3", "MPEG_LAYER_III"), (48_000, 1, "OGG", "OPUS")],
)
async def test_recordings_as_people_send_them(
    embed: EmbedSpeaker, call: Call, rate: int, channels: int, container: str, coding: str
) -> None:
    """A telephone's narrow band moves a voice, but not to another one."""
    spoken = speak("own", *TALK)
    many = np.stack([soxr.resample(spoken, SAMPLE_RATE, rate)] * channels, axis=1)
    answer = await embed(EmbedSpeakerRequest(audio=audio(many, rate, container, coding)), call)
    assert np.array(answer.embedding.values) @ await voice(embed, call, spoken) > (0.75 if rate == 8_000 else 0.93)


@pytest.mark.parametrize(
    "samples",
    [silence(5), noise(5), noise(5, 0.002), hum(50, 9), silence(0.01), silence(1 / SAMPLE_RATE), noise(0.05)],
    ids=["silence", "noise", "soft noise", "hum", "10 ms", "a sample", "50 ms"],
)
async def test_where_nobody_speaks_there_is_no_voice(
    embed: EmbedSpeaker, by_level: EmbedSpeaker, call: Call, samples: Samples
) -> None:
    for task in (embed, by_level):
        with pytest.raises(NoSpeech, match="nobody speaks") as caught:
            await hear(task, call, samples)
        assert caught.value.code == "FAILED_PRECONDITION"


async def test_a_single_word_is_a_voice_too(embed: EmbedSpeaker, call: Call) -> None:
    speech, _ = seconds(await hear(embed, call, say("Hello!")))
    assert 0.2 < speech < 1.5


async def test_a_mesh_without_a_model_of_speech_listens_by_level(
    embed: EmbedSpeaker, by_level: EmbedSpeaker, call: Call
) -> None:
    spoken = np.concatenate([silence(20), speak("own", *TALK), silence(20)])
    one, other = await hear(embed, call, spoken), await hear(by_level, call, spoken)
    assert np.dot(one.embedding.values, other.embedding.values) > 0.97
    assert seconds(other)[0] == pytest.approx(seconds(one)[0], abs=1.5)


async def test_what_is_loud_is_found_in_the_pool(
    by_level: EmbedSpeaker, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour has 180,000 levels: meanwhile the loop would answer nobody."""
    threads: list[str] = []

    def watched(decibels: Samples) -> Samples:
        threads.append(threading.current_thread().name)
        return louder(decibels)

    monkeypatch.setattr(speech_only, "louder", watched)
    await hear(by_level, call, speak("own", *TALK))
    assert [name.startswith("ortmesh-pool") for name in threads] == [True]


async def test_no_more_is_read_than_a_voice_needs(
    embed: EmbedSpeaker, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_speaker, "MAX_SECONDS", 3.0)
    answer = await hear(embed, call, np.tile(speak("own", *TALK), 6))
    speech, duration = seconds(answer)
    assert speech == pytest.approx(3, abs=0.001)
    assert duration < 15, "of a minute"


async def test_callers_at_once_are_heard_as_alone(embed: EmbedSpeaker, call: Call) -> None:
    assert embed.models.choose("embed_speaker", "", call).mode is Mode.TOGETHER
    several = [speak(throat, *texts) for throat in THROATS for texts in (TALK, OTHER_TALK)]
    alone = [await voice(embed, call, samples) for samples in several]
    together = await asyncio.gather(*(voice(embed, call, samples) for samples in several))
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=1e-3)


async def test_vectors_travel_as_they_are_asked_for(embed: EmbedSpeaker, call: Call) -> None:
    request = EmbedSpeakerRequest(audio=audio(speak("own", *TALK)))
    numbers = np.array((await embed(request, call)).embedding.values, np.float32)
    request.encoding = common_pb2.VECTOR_ENCODING_FLOAT32_BYTES
    packed = (await embed(request, call)).embedding
    assert not packed.values
    np.testing.assert_allclose(np.frombuffer(packed.packed, "<f4"), numbers, atol=1e-6)


RECORDING = audio(silence(1))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (EmbedSpeakerRequest(), "audio"),
        (EmbedSpeakerRequest(audio=Audio(encoded=b"no audio at all")), "audio.encoded"),
        (EmbedSpeakerRequest(audio=audio(np.empty(0), container="WAV")), "audio.encoded"),
        (EmbedSpeakerRequest(audio=RECORDING, encoding=99), "encoding"),  # type: ignore[arg-type]
        (EmbedSpeakerRequest(audio=RECORDING, model="silero-vad"), "model"),
    ],
)
async def test_wrong_requests_name_their_field(
    embed: EmbedSpeaker, call: Call, request_: EmbedSpeakerRequest, field: str
) -> None:
    with pytest.raises(BadInput) as caught:
        await embed(request_, call)
    assert caught.value.violations[0].field == field


async def test_longer_than_an_hour_is_refused_at_once(embed: EmbedSpeaker, call: Call) -> None:
    """By its header: the rest is not there."""
    with pytest.raises(OutOfRange, match=r"audio\.encoded"):
        await embed(EmbedSpeakerRequest(audio=Audio(encoded=over_an_hour()[:HEADER_BYTES])), call)


async def test_an_unknown_model_is_answered_with_near_ones(embed: EmbedSpeaker, call: Call) -> None:
    with pytest.raises(NotFound, match="resemblyzer"):
        await embed(EmbedSpeakerRequest(model="resembliser", audio=RECORDING), call)


async def test_who_leaves_or_is_late_gets_no_voice(
    embed: EmbedSpeaker, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline passes while the first of many blocks is judged: the others never are."""
    detector = embed.models.choose("detect_speech", "", call)
    judged = handed_to(detector, monkeypatch, lambda: setattr(call, "deadline", 0))
    with pytest.raises(Expired):
        await hear(embed, call, noise(60))
    assert len(judged) == 1
    call.cancel()
    with pytest.raises(Cancelled):
        await hear(embed, call, noise(60))


async def test_a_card_that_is_wrong_says_what(embed: EmbedSpeaker, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    model = embed.models.choose("embed_speaker", "", call)
    monkeypatch.setattr(model, "card", model.card.model_copy(update={"preprocessing": {"frames": 5}}))
    with pytest.raises(ModelFailed, match=r"resemblyzer@1.*frames"):
        await hear(embed, call, say(SENTENCES[4]))
