"""The Moonshine program on its real graphs: texts, forced beginnings, batches and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
import pytest_asyncio

from ortmesh.errors import BadInput, Cancelled
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.types import Array
from ortmesh.serving.warmup import Mode
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.interim import vocabulary_of
from tests.conftest import FamilyModels
from tests.speech.voices import SENTENCES, noise, say, word_errors

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(family_models: FamilyModels) -> AsyncIterator[Model]:
    async with family_models("speech", "moonshine-tiny-en") as models:
        (model,) = models.list()
        yield model


async def hear(model: Model, call: Call, samples: Samples, prefix: Sequence[int] = ()) -> list[int]:
    tensors = {"samples": samples[None]}
    if prefix:
        tensors["prefix"] = np.array([prefix], np.int64)
    tokens: list[int] = (await model(tensors, call))["tokens"][0].tolist()
    return tokens


async def test_what_is_said_is_written(model: Model, call: Call) -> None:
    texts = [vocabulary_of(model).text(await hear(model, call, say(sentence))) for sentence in SENTENCES[:6]]
    assert word_errors(" ".join(SENTENCES[:6]), " ".join(texts)) <= 2


async def test_a_text_begins_as_it_must(model: Model, call: Call) -> None:
    """The rest of it is what follows that beginning."""
    vocabulary = vocabulary_of(model)
    free = await hear(model, call, say(SENTENCES[4]))
    for kept in (1, 5, len(free)):
        assert await hear(model, call, say(SENTENCES[4]), free[:kept]) == free
    other = await hear(model, call, say(SENTENCES[0]))
    forced = await hear(model, call, say(SENTENCES[4]), other[:3])
    assert forced[:3] == other[:3]
    assert "fox" in vocabulary.text(forced)


async def test_rows_of_a_batch_are_heard_as_alone(model: Model, call: Call) -> None:
    """Equal and unequal lengths, with beginnings of their own, at once."""
    assert model.mode is Mode.TOGETHER
    several = [say(sentence)[: 3 * SAMPLE_RATE] for sentence in SENTENCES[:5]] + [say(SENTENCES[5]), noise(1)]
    free = [await hear(model, call, samples) for samples in several]
    prefixes = [tokens[: 2 * place] for place, tokens in enumerate(free)]
    alone = [await hear(model, call, samples, prefix) for samples, prefix in zip(several, prefixes, strict=True)]
    jobs = [hear(model, call, samples, prefix) for samples, prefix in zip(several, prefixes, strict=True)]
    assert await asyncio.gather(*jobs) == alone


async def test_an_item_of_several_rows(model: Model, call: Call) -> None:
    rows = np.stack([say(sentence)[: 3 * SAMPLE_RATE] for sentence in SENTENCES[:5]])
    together = (await model({"samples": rows}, call))["tokens"]
    for row, tokens in zip(rows, together, strict=True):
        alone = await hear(model, call, row)
        assert tokens[: len(alone)].tolist() == alone
        assert (tokens[len(alone) :] == 2).all()


async def test_noise_gives_a_text_of_bounded_length(model: Model, call: Call) -> None:
    assert len(await hear(model, call, noise(10, level=0.2))) <= 70


@pytest.mark.parametrize(
    ("samples", "prefix", "field"),
    [
        (np.zeros((1, 1000), np.float32), None, "samples"),
        (np.zeros((1, 31 * SAMPLE_RATE), np.float32), None, "samples"),
        (np.zeros((2, SAMPLE_RATE), np.float32), np.zeros((1, 3), np.int64), "prefix"),
    ],
)
async def test_tensors_that_do_not_fit_are_named(
    model: Model,
    call: Call,
    samples: Samples,
    prefix: Array | None,
    field: str,
) -> None:
    tensors: dict[str, Array] = {"samples": samples}
    if prefix is not None:
        tensors["prefix"] = prefix
    with pytest.raises(BadInput) as caught:
        await model.infer(tensors, call, outputs=None)
    assert caught.value.violations[0].field == field


async def test_who_leaves_is_decoded_no_further(model: Model, call: Call) -> None:
    job = asyncio.create_task(hear(model, call, np.tile(say(SENTENCES[0]), 5)))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(Cancelled):
        await job
