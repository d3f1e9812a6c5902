"""NlpService.Embed on MiniLM: meaning, lengths, and bad texts that spare their neighbours."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from tokenizers import Tokenizer

from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh_nlp.embed import Embed, Tokens, cut, groups, prepare
from tests.conftest import FamilyModels

QUESTION = "How do I reset my password?"
RIGHT = [
    "Click 'forgot password' on the sign-in page to choose a new one.",
    "You can change your password in the settings.",
]
WRONG = ["The cat slept on the warm windowsill.", "Quarterly revenue grew by eight percent."]


@pytest.fixture
async def models(family_models: FamilyModels) -> AsyncIterator[Models]:
    async with family_models("nlp") as loaded:
        yield loaded


@pytest.fixture
def tokenizer(store: Store) -> Tokenizer:
    return load_tokenizer(store.folder("all-minilm-l6-v2", "1") / "tokenizer.json")


async def test_right_answers_are_closer_to_a_question_than_wrong_ones(models: Models, call: Call) -> None:
    answer = await Embed(models)(EmbedRequest(texts=[QUESTION, *RIGHT, *WRONG]), call)
    vectors = np.array([result.embedding.values for result in answer.results])
    closeness = vectors[1:] @ vectors[0]
    assert min(closeness[:2]) > 0.4
    assert max(closeness[2:]) < 0.2
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (answer.model.name, answer.model.version) == ("all-minilm-l6-v2", "1")


async def test_the_vector_is_the_one_that_was_recorded(models: Models, call: Call) -> None:
    """Checked by a person against the sentence-transformers model that the weights come from."""
    answer = await Embed(models)(EmbedRequest(texts=[QUESTION]), call)
    expected = [0.0069031, -0.0630234, -0.0720440, -0.0324961, -0.0427093]
    np.testing.assert_allclose(answer.results[0].embedding.values[:5], expected, atol=1e-4)
    assert answer.results[0].tokens == 9


async def test_a_text_alone_and_among_longer_ones_gives_one_vector(models: Models, call: Call) -> None:
    alone = await Embed(models)(EmbedRequest(texts=[QUESTION]), call)
    among = await Embed(models)(EmbedRequest(texts=["word " * 200, QUESTION, "a"] * 5), call)
    np.testing.assert_allclose(alone.results[0].embedding.values, among.results[1].embedding.values, atol=1e-5)


async def test_a_bad_text_among_good_ones_gets_its_own_error(models: Models, call: Call) -> None:
    answer = await Embed(models)(EmbedRequest(texts=["good", "", "fine"]), call)
    assert [result.WhichOneof("outcome") for result in answer.results] == ["embedding", "error", "embedding"]
    assert answer.results[1].error.code == 3
    assert "texts[1]" in answer.results[1].error.message


async def test_a_single_bad_text_fails_the_call(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match="not empty"):
        await Embed(models)(EmbedRequest(texts=[" \n"]), call)


@pytest.mark.parametrize("count", [0, 257])
async def test_the_number_of_texts_is_bounded(models: Models, call: Call, count: int) -> None:
    with pytest.raises(BadInput, match="1 to 256"):
        await Embed(models)(EmbedRequest(texts=["x"] * count), call)


def test_a_text_over_the_limit_is_refused_by_its_length(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInput, match="100001 characters"):
        prepare(["x" * 100_001], tokenizer, 256)


def test_a_long_text_is_cut_and_says_so(tokenizer: Tokenizer) -> None:
    [tokens] = prepare(["word " * 1000], tokenizer, 256)
    assert isinstance(tokens, Tokens)
    assert (tokens.count, tokens.truncated) == (256, True)
    assert tokens.tensors["input_ids"][0, -1] == 102, "the closing token stays"


def test_a_short_text_is_not_padded(tokenizer: Tokenizer) -> None:
    [tokens] = prepare([QUESTION], tokenizer, 256)
    assert isinstance(tokens, Tokens)
    assert tokens.tensors["input_ids"].tolist() == [[101, 2129, 2079, 1045, 25141, 2026, 20786, 1029, 102]]
    assert not tokens.truncated


def test_texts_of_any_script_and_nul_characters_are_read(tokenizer: Tokenizer) -> None:
    prepared = prepare(["\0 zero", "日本語のテキスト", "עברית", "🙂🙂"], tokenizer, 256)
    assert all(isinstance(tokens, Tokens) for tokens in prepared)


def test_cut_keeps_what_fits() -> None:
    assert cut([1, 2, 3], 3).tensors["input_ids"].tolist() == [[1, 2, 3]]
    assert cut([1, 2, 3, 4], 3).tensors["input_ids"].tolist() == [[1, 2, 4]]


@pytest.mark.parametrize(
    "unit", ["word ", "1.", "a", "aa-", "각각 ", "中", "🙂", " x" + " " * 500, "wordy" * 60 + " ", "\u0301"]
)
@pytest.mark.parametrize("limit", [8, 256])
def test_a_long_text_is_read_as_far_as_it_is_kept(tokenizer: Tokenizer, unit: str, limit: int) -> None:
    """Its beginning gives the tokens that all of it would give, whatever stands where it is cut."""
    text = (unit * 100_000)[:100_000]
    (tokens,) = prepare([text], tokenizer, limit)
    assert isinstance(tokens, Tokens)
    whole = cut(tokenizer.encode(text).ids, limit)
    assert tokens.tensors["input_ids"].tolist() == whole.tensors["input_ids"].tolist()
    assert (tokens.count, tokens.truncated) == (whole.count, whole.truncated)


def test_few_characters_are_tokenized_at_a_time() -> None:
    """The tokenizer holds hundreds of bytes for each."""
    texts = ["a" * 60_000, "b" * 40_000, "c", "d" * 100_000, "e" * 5]
    assert [[text[0] for text in group] for group in groups(texts)] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(groups([])) == []
