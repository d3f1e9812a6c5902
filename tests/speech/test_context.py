"""What was said before an utterance, as its recognizer is told: streams that go on side by side are heard so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from ortmesh.front.call import Call
from ortmesh.serving.executor import whisper_group
from ortmesh.serving.executor.whisper_decoder import Cross, Decoding, Graphs
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh_speech.options import Options
from ortmesh_speech.recognizer import Recognizer
from ortmesh_speech.window import Window
from tests.conftest import FamilyModels
from tests.speech.voices import SENTENCES, say
from tests.speech.whisper_items import load, run, text

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(family_models: FamilyModels) -> AsyncIterator[Models]:
    async with family_models("speech", "whisper-tiny-en") as models:
        yield models


@pytest.fixture
def model(models: Models, call: Call) -> Model:
    return models.choose("recognize", "", call)


def window(sentence: str) -> Window:
    return Window(samples=say(sentence), offset=0.0, speech=((0.0, 4.0),))


async def test_utterances_of_two_streams_are_decoded_together(
    model: Model, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second and third of each have texts of other lengths before them: of 20 and 17 tokens, then 41 and 33."""
    widths: list[int] = []

    class Watched(Decoding):
        def __init__(self, graphs: Graphs, group: Sequence[Cross]) -> None:
            widths.append(len(group))
            super().__init__(graphs, group)

    recognizer, program = Recognizer(model, Options(), 1), load(store)
    monkeypatch.setattr(whisper_group, "Decoding", Watched)
    streams = [SENTENCES[number] for number in (2, 3, 4)], [SENTENCES[number] for number in (0, 7, 8)]
    for place in range(3):
        heard = [recognizer.tensors(window(said[place]), 10, " ".join(said[:place])) for said in streams]
        run(program, heard)
    assert widths == [2, 2, 2]


@pytest.mark.parametrize(("words", "told"), [(0, 0), (7, 0), (8, 8), (15, 8), (40, 32), (100, 48)])
async def test_as_much_is_told_as_has_one_of_few_lengths(model: Model, words: int, told: int) -> None:
    before = " ".join(str(number % 10) for number in range(words))
    tensors = Recognizer(model, Options(), 1).tensors(window(SENTENCES[4]), 10, before)
    assert ("prompt" in tensors) == (told > 0)
    assert not told or tensors["prompt"].shape == (1, told)


async def test_the_end_of_what_was_said_goes_behind_the_callers_own_text(model: Model, store: Store) -> None:
    recognizer, program = Recognizer(model, Options(prompt="Agnieszka Kowalski."), 1), load(store)
    before = "So much was said before. She lives by the harbor with her cousin."
    told = text(program, recognizer.tensors(window(SENTENCES[4]), 10, before)["prompt"][0])
    assert told.startswith(" Agnieszka Kowalski.")
    assert told.endswith("by the harbor with her cousin.")
    own = recognizer.tensors(window(SENTENCES[4]), 10)["prompt"]
    assert text(program, own[0]) == " Agnieszka Kowalski."
