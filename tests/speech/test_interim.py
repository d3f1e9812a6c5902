"""Windows of interim results: on a grid, each longer than the last, with silence behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.interim import BEHIND_SECONDS, LEAST_SECONDS, STEP_SECONDS, Interim
from ortmesh_speech.utterances import Utterances
from tests.conftest import FamilyModels
from tests.speech.voices import SENTENCES, say, word_errors

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRAME = 512
STEP = round(STEP_SECONDS * SAMPLE_RATE)
BEHIND = round(BEHIND_SECONDS * SAMPLE_RATE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(family_models: FamilyModels) -> AsyncIterator[Models]:
    async with family_models("speech", "moonshine-tiny-en") as models:
        yield models


@pytest.fixture
def interim(models: Models, call: Call) -> Interim:
    return Interim(models.choose("streaming_recognize", "", call))


def grow(utterances: Utterances, interim: Interim, samples: Samples, speech: float = 1.0) -> list[Samples]:
    """The windows that are heard of samples that come frame by frame."""
    made = []
    for at in range(0, len(samples) - FRAME + 1, FRAME):
        utterances.push(samples[at : at + FRAME], np.full(1, speech, np.float32))
        if (open_ := utterances.open) is not None:
            made += [window] if (window := interim.next_window(utterances, open_)) is not None else []
    return made


async def test_windows_grow_by_half_seconds_and_end_in_silence(interim: Interim) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
    windows = grow(Utterances(FRAME, 0.5), interim, noise)
    assert [len(window) // STEP for window in windows] == list(range(3, 10))
    for window in windows:
        assert len(window) % STEP == 0
        assert not window[-BEHIND:].any()
        assert window[-BEHIND - 100 : -BEHIND].all()


async def test_less_than_a_word_is_not_heard(interim: Interim) -> None:
    assert grow(Utterances(FRAME, 0.5), interim, np.ones(int((LEAST_SECONDS - 0.05) * SAMPLE_RATE), np.float32)) == []


async def test_each_utterance_begins_anew(interim: Interim) -> None:
    utterances, second = Utterances(FRAME, 0.5), np.ones(2 * SAMPLE_RATE, np.float32)
    first = grow(utterances, interim, second)
    grow(utterances, interim, second, speech=0.0)
    assert [len(window) for window in grow(utterances, interim, second)] == [len(window) for window in first]


async def test_what_is_said_so_far(interim: Interim, call: Call) -> None:
    """A sentence to its end, and its first second and a half."""
    utterances, spoken = Utterances(FRAME, 0.5), say(SENTENCES[4])
    for samples, words in ((spoken[: int(1.5 * SAMPLE_RATE)], "The quick brown fox"), (spoken, SENTENCES[4])):
        utterances = Utterances(FRAME, 0.5)
        window = grow(utterances, interim, samples)[-1]
        open_ = utterances.open
        assert open_ is not None
        result = await interim.hear(window, open_, call)
        assert word_errors(words, result.transcript) <= 2
        assert result.heard.ToMilliseconds() == pytest.approx(1000 * len(samples) / SAMPLE_RATE, abs=33)
