"""SpeechService.IdentifyLanguage on a small model of the shape of a multilingual Whisper, made here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from onnx import TensorProto, helper

from ortmesh.config import cpus
from ortmesh.errors import BadInput, ModelFailed, NotFound
from ortmesh.front.call import Call
from ortmesh.serving.cards import CARD_FILE, Card, read_card, write_card
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from ortmesh.speech.v1.speech_pb2 import Audio, IdentifyLanguageRequest, IdentifyLanguageResponse
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.identify_language import Hearing, IdentifyLanguage, finish, prepare
from tests.serving.graphs import tensor, write
from tests.serving.shelf import install
from tests.speech.voices import SENTENCES, audio, noise, say, silence

pytestmark = pytest.mark.asyncio(loop_scope="module")

LANGUAGES = ["yue", "jw", "haw", "en"]


def sparse(folder: Path) -> Path:
    """A "language" for each share of the window's first ten seconds, and of its last, in which something sounds.

    yue: 0 to 5 s, jw: 5 to 10 s, haw: 10 to 20 s, en: 20 to 30 s; the log-softmax of four times these shares.
    """
    nodes = [
        helper.make_node("ReduceMax", ["mel"], ["loudest"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["loudest", "silence"], ["sounds"]),
        helper.make_node("Cast", ["sounds"], ["share"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["share", "parts"], ["shares"]),
        helper.make_node("LogSoftmax", ["shares"], ["all_equal"], axis=-1),
        helper.make_node("Cast", ["beam_width"], ["width"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["width", "nothing"], ["unused"]),
        helper.make_node("Unsqueeze", ["unused", "last"], ["column"]),
        helper.make_node("Add", ["all_equal", "column"], ["language_logprobs"]),
    ]
    parts = np.zeros((3000, 4), np.float32)
    for place, (first, last) in enumerate([(0, 500), (500, 1000), (1000, 2000), (2000, 3000)]):
        parts[first:last, place] = 4 / (last - first)
    weights = {"silence": np.float32(-0.4), "parts": parts, "nothing": np.float32(0), "last": np.array([1])}
    inputs = [tensor("mel", ["n", 80, 3000]), tensor("beam_width", ["n"], TensorProto.INT64)]
    return write(folder, nodes, inputs, [tensor("language_logprobs", ["n", 4])], weights)


@pytest.fixture(scope="module")
def shelf(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the small model, one whose card lacks a language, and the real one that detects speech."""
    made, folder = Store(tmp_path_factory.mktemp("store")), tmp_path_factory.mktemp("model")
    sparse(folder)
    (made.root / "silero-vad").symlink_to(store.root / "silero-vad")
    common: dict[str, Any] = {
        "family": "speech",
        "tasks": ["identify_language"],
        "runtime": {"instances": 1},
        "inputs": {"beam_width": {"sample_range": [1, 2]}},
    }
    install(made, folder, "languages", languages=LANGUAGES, default_for=["identify_language"], **common)
    install(made, folder, "too-few", languages=LANGUAGES[1:], **common)
    whisper_of_one_language(store.folder("whisper-tiny-en", "1"), made.root / "whisper-tiny-en" / "1")
    return made


def whisper_of_one_language(real: Path, folder: Path) -> None:
    """The program that a multilingual Whisper has, with the default model's weights."""
    folder.mkdir(parents=True)
    card = read_card(real / CARD_FILE)
    for name in card.files:
        (folder / name).symlink_to(real / name)
    write_card(card.model_copy(update={"tasks": ["identify_language"], "default_for": []}), folder / CARD_FILE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def identify(shelf: Store) -> AsyncIterator[IdentifyLanguage]:
    """The task, its models loaded once for all tests here."""
    async with Models(shelf, "speech", threads=cpus(), meter=lambda *_: NoMeter()) as models:
        task = IdentifyLanguage(models)
        await models.until_loaded()
        yield task


async def hear(task: IdentifyLanguage, call: Call, samples: Samples, most: int = 0) -> IdentifyLanguageResponse:
    return await task(IdentifyLanguageRequest(audio=audio(samples), max_results=most), call)


def codes(answer: IdentifyLanguageResponse) -> list[str]:
    return [each.code for each in answer.languages]


async def test_the_most_probable_come_first_under_the_codes_of_iso(identify: IdentifyLanguage, call: Call) -> None:
    """A sentence of four seconds sounds in the first five alone."""
    answer = await hear(identify, call, say(SENTENCES[0]))
    assert (answer.model.name, answer.model.version) == ("languages", "1")
    assert codes(answer)[0] == "yue"
    assert set(codes(answer)) == {"yue", "jv", "haw", "en"}
    confidences = [each.confidence for each in answer.languages]
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) == pytest.approx(1, abs=1e-5)


async def test_silence_before_and_between_the_words_is_not_heard(identify: IdentifyLanguage, call: Call) -> None:
    parts = [silence(40), say(SENTENCES[0]), silence(15), say(SENTENCES[1]), silence(5)]
    answer = await hear(identify, call, np.concatenate(parts))
    assert codes(answer)[:2] == ["yue", "jv"]
    assert answer.duration.ToMilliseconds() == pytest.approx(sum(map(len, parts)) / 16, abs=1)


async def test_thirty_seconds_of_speech_are_enough(identify: IdentifyLanguage, call: Call) -> None:
    talk = np.concatenate([say(sentence) for sentence in SENTENCES[:10]])
    answer = await hear(identify, call, np.tile(talk, 4))
    assert answer.languages[0].confidence == pytest.approx(answer.languages[3].confidence, rel=0.5), "all of it sounds"
    assert answer.duration.ToMilliseconds() < len(talk) / 16 * 2, "the rest is not read"


@pytest.mark.parametrize(("asked", "told"), [(1, 1), (3, 3), (0, 4), (100, 4)])
async def test_as_many_are_told_as_were_asked_for(
    identify: IdentifyLanguage, call: Call, asked: int, told: int
) -> None:
    assert len((await hear(identify, call, say(SENTENCES[4]), asked)).languages) == told


@pytest.mark.parametrize(
    "samples",
    [silence(5), noise(5), silence(1 / SAMPLE_RATE), noise(0.05)],
    ids=["silence", "noise", "a sample", "50 ms"],
)
async def test_nobody_speaks_no_language(identify: IdentifyLanguage, call: Call, samples: Samples) -> None:
    answer = await hear(identify, call, samples)
    assert codes(answer) == []
    assert answer.duration.ToMilliseconds() == pytest.approx(len(samples) / 16, abs=1)


RECORDING = audio(silence(1))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (IdentifyLanguageRequest(), "audio"),
        (IdentifyLanguageRequest(audio=Audio(encoded=b"no audio at all")), "audio.encoded"),
        (IdentifyLanguageRequest(audio=audio(np.empty(0), container="WAV")), "audio.encoded"),
        (IdentifyLanguageRequest(audio=RECORDING, max_results=-1), "max_results"),
        (IdentifyLanguageRequest(audio=RECORDING, max_results=101), "max_results"),
        (IdentifyLanguageRequest(audio=RECORDING, model="silero-vad"), "model"),
    ],
)
async def test_wrong_requests_name_their_field(
    identify: IdentifyLanguage, call: Call, request_: IdentifyLanguageRequest, field: str
) -> None:
    with pytest.raises(BadInput) as caught:
        await identify(request_, call)
    assert caught.value.violations[0].field == field


async def test_a_card_with_other_languages_than_its_graph_is_not_served(identify: IdentifyLanguage, call: Call) -> None:
    with pytest.raises(ModelFailed, match="3 languages for 4 classes"):
        await identify(IdentifyLanguageRequest(audio=RECORDING, model="too-few"), call)


async def test_whisper_is_asked_for_the_language_alone(identify: IdentifyLanguage, call: Call) -> None:
    """Of one language it is sure."""
    request = IdentifyLanguageRequest(audio=audio(say(SENTENCES[4])), model="whisper-tiny-en")
    assert [(each.code, each.confidence) for each in (await identify(request, call)).languages] == [("en", 1.0)]


async def test_a_mesh_without_such_a_model_says_so(store: Store, call: Call) -> None:
    async with Models(store, "speech", threads=1, meter=lambda *_: NoMeter(), only=["silero-vad"]) as models:
        await models.until_loaded()
        with pytest.raises(NotFound, match="no model of this service does identify language"):
            await IdentifyLanguage(models)(IdentifyLanguageRequest(audio=RECORDING), call)


async def test_a_program_that_can_is_told_to_write_no_text() -> None:
    spoken = prepare(say(SENTENCES[4]), Hearing(), may_stop=True)
    assert spoken.keys() == {"mel", "beam_width", "want_text"}
    assert spoken["mel"].shape == (1, 80, 3000)
    assert spoken["want_text"].tolist() == [0]
    assert "want_text" not in prepare(say(SENTENCES[4]), Hearing(mels=128), may_stop=False)


async def test_equal_languages_keep_the_order_of_the_card() -> None:
    told = finish(np.log(np.array([0.2, 0.2, 0.6], np.float32)), ["a", "jw", "c"], 3)
    assert [each.code for each in told] == ["c", "a", "jv"]


async def test_a_card_may_name_its_constants() -> None:
    card = Card(name="x", family="speech", preprocessing={"mels": 128, "max_seconds": 30, "beams": 5})
    assert Hearing.model_validate(card.preprocessing) == Hearing(mels=128)
