"""What else Whisper's program may be told and asked: phrases, earlier text, alternatives, languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from ortmesh import catalogue
from ortmesh.catalogue.recipes._whisper_files import SPECIAL_TOKENS, write_model
from ortmesh.errors import BadInput
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.whisper import WhisperProgram
from ortmesh.serving.executor.whisper_phrases import ROOT, Phrases
from ortmesh.serving.executor.whisper_search import Draws, Offer
from ortmesh.serving.executor.whisper_window import Result
from ortmesh.serving.store import Store
from ortmesh.serving.types import Array, Tensors
from tests.speech.voices import SENTENCES, say, word_errors
from tests.speech.whisper_items import heard, load, phrases, run, text, tokens

NAMES = "Please call Katarzyna Wojcik about the Kubernetes cluster in Gdansk."


@pytest.fixture(scope="module")
def program(store: Store) -> WhisperProgram:
    return load(store)


def said(program: WhisperProgram, tensors: Tensors) -> str:
    (outputs,) = run(program, [tensors])
    return text(program, outputs["tokens"][0])


def test_favoured_phrases_are_heard(program: WhisperProgram) -> None:
    spoken = say(NAMES)
    assert word_errors(NAMES, said(program, heard(spoken))) >= 2
    favoured = phrases(program, ["Katarzyna Wojcik", "Kubernetes", "Gdansk"], 2)
    assert word_errors(NAMES, said(program, heard(spoken, **favoured))) == 0


def test_phrases_that_nobody_says_are_not_heard(program: WhisperProgram) -> None:
    favoured = phrases(program, ["Katarzyna", "Zanzibar", "metoprolol", "dogma", "The quartz"], 2)
    assert word_errors(SENTENCES[4], said(program, heard(say(SENTENCES[4]), **favoured))) == 0


def test_names_are_spelled_as_in_the_text_before(program: WhisperProgram) -> None:
    prompt = tokens(program, "Katarzyna Wojcik, Kubernetes, Gdansk.")
    assert word_errors(NAMES, said(program, heard(say(NAMES), prompt=prompt))) == 0


def test_of_earlier_text_the_end_counts(program: WhisperProgram) -> None:
    """250 tokens: more than the decoder has positions for beside a text."""
    prompt = [*tokens(program, "word " * 240), *tokens(program, "Katarzyna Wojcik, Kubernetes, Gdansk.")]
    assert word_errors(SENTENCES[4], said(program, heard(say(SENTENCES[4]), prompt=prompt))) <= 1


def test_alternatives_are_other_texts_best_first(program: WhisperProgram) -> None:
    (outputs,) = run(program, [heard(say(NAMES))])
    logprobs = outputs["alternative_logprobs"][0]
    texts = [text(program, row) for row in (outputs["tokens"][0], *outputs["alternatives"][0])]
    assert len(set(texts)) == len(texts) > 2
    assert np.all(np.diff(logprobs) <= 0)
    assert logprobs[0] <= outputs["mean_logprob"][0]


def test_each_token_has_its_probability(program: WhisperProgram) -> None:
    (outputs,) = run(program, [heard(say(SENTENCES[4]))])
    assert outputs["token_logprobs"].shape == outputs["tokens"].shape
    assert (outputs["token_logprobs"] <= 0).all()
    assert np.exp(outputs["token_logprobs"]).mean() > 0.8
    assert outputs["language"].tolist() == [0]


def test_whatever_is_wished_for_does_not_depend_on_the_batch(program: WhisperProgram) -> None:
    """Bit by bit: beams, phrases, earlier text, words' times side by side with plain items."""
    many = [
        heard(say(SENTENCES[4])),
        heard(say(NAMES), **phrases(program, ["Gdansk", "Katarzyna Wojcik"], 2)),
        heard(say(SENTENCES[8]), prompt=tokens(program, "Apple trees."), want_words=1),
        heard(say(SENTENCES[8]), beams=1, want_words=1),
        heard(say(SENTENCES[3]), beams=2),
        heard(say(SENTENCES[6]), want_words=1),
    ]
    alone = [run(program, [tensors])[0] for tensors in many]
    for one, other in zip(alone, run(program, many), strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array)


def test_draws_are_the_same_alone_and_among_others(program: WhisperProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is good: all temperatures are tried."""
    monkeypatch.setattr(Result, "good", False)
    many = [heard(say(text), beams=1) for text in ("Come here.", "Good morning.")]
    alone = [run(program, [tensors])[0] for tensors in many]
    for one, other in zip(alone, run(program, many), strict=True):
        np.testing.assert_array_equal(other["tokens"], one["tokens"])
        np.testing.assert_array_equal(other["mean_logprob"], one["mean_logprob"])


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"language": 1}, "language"),
        ({"want_words": 2}, "want_words"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": [50_300]}, "prompt"),
        ({"bias_tokens": [[1]]}, "bias_boost"),
        ({"bias_boost": [1.0]}, "bias_tokens"),
        ({"bias_tokens": [[1]], "bias_boost": [11.0]}, "bias_boost"),
        ({"bias_tokens": [[1]], "bias_boost": [float("nan")]}, "bias_boost"),
        ({"bias_tokens": [[-2]], "bias_boost": [1.0]}, "bias_tokens"),
        ({"bias_tokens": [[1]], "bias_boost": [1.0, 1.0]}, "bias_boost"),
    ],
)
def test_wrong_wishes_are_refused(program: WhisperProgram, wishes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as refused:
        run(program, [heard(say("Come here."), **wishes)])
    assert refused.value.violations[0].field == field


# --- phrases and draws by themselves -------------------------------------------------------------------------

GOES_ON = np.zeros(20, bool)
GOES_ON[9] = True  # token 9 continues a word


def gained(favoured: Phrases, *written: int) -> list[float]:
    state, gains = ROOT, []
    for token in written:
        state, gain = favoured.step(state, token)
        gains.append(gain)
    return gains


def test_a_whole_phrase_keeps_its_boost_and_a_broken_one_gives_it_back() -> None:
    favoured = Phrases({(1, 2, 3): 2.0}, GOES_ON)
    assert gained(favoured, 1, 2, 3, 4) == [2, 2, 2, 0]
    assert gained(favoured, 1, 2, 4) == [2, 2, -4]
    assert gained(favoured, 1, 1, 2, 3) == [2, 0, 2, 2]


def test_a_phrase_within_a_longer_word_gives_its_boost_back() -> None:
    assert gained(Phrases({(1, 2): 2.0}, GOES_ON), 1, 2, 9) == [2, 2, -4]


def test_a_phrase_that_begins_a_longer_one_keeps_its_own_part() -> None:
    favoured = Phrases({(1,): 1.0, (1, 2, 3): 1.0}, GOES_ON)
    assert gained(favoured, 1, 2, 5) == [1, 1, -1]
    assert favoured.tokens([ROOT]) == {1}
    assert favoured.tokens([favoured.step(ROOT, 1)[0]]) == {1, 2}


def offer(rows: int) -> Offer:
    """Three tokens of probability .6, .3, .1; the last one ends the text."""
    scores = np.log(np.tile(np.array([[0.6, 0.3, 0.1]], np.float32), (rows, 1)))
    return Offer(scores, np.tile([[1, 2, 0]], (rows, 1)), np.zeros((rows, 0), np.float32), np.zeros(0, np.int64))


def draw(temperature: float, seed: int = 0) -> list[tuple[int, ...]]:
    search = Draws(5, 0, temperature=temperature, seed=seed)
    first = offer(1)
    search.begin(first._replace(scores=first.scores[:, :2], tokens=first.tokens[:, :2]))
    for _ in range(100):
        if search.grow(offer(5)) is None:
            break
    return [found.tokens for found in search.found()]


def test_draws_vary_with_the_temperature_and_repeat_with_the_seed() -> None:
    assert draw(1.0) == draw(1.0)
    assert draw(1.0) != draw(1.0, seed=1)
    assert {token for found in draw(0.01) for token in found} == {1}
    assert {token for found in draw(1.0) for token in found} == {1, 2}


# --- languages, on small weights made here: the multilingual model is optional -------------------------------

LANGUAGES = ("en", "de", "jw")
VOCABULARY, WIDTH, MELS = 51865, 128, 8


@pytest.fixture(scope="module")
def babel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multilingual Whisper of random weights, one layer each, that knows three languages."""
    folder = tmp_path_factory.mktemp("babel")
    specials = [f"<|{code}|>" for code in LANGUAGES]
    names = {text: 50_257 + place for place, text in enumerate([*SPECIAL_TOKENS.values(), *specials])}
    others = [place for place in range(VOCABULARY) if place not in names.values()]
    tokenizer = Tokenizer(WordLevel({**names, **{f"w{place}": place for place in others}}, unk_token="w0"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    tokenizer.save(str(folder / "source.json"))
    config = {"suppress_ids": [], "suppress_ids_begin": [], "lang_ids": [names[name] for name in specials]}
    (folder / "config.json").write_text(json.dumps(config))
    write_model(_weights(), folder / "config.json", folder / "source.json", folder)
    return folder


def _weights() -> dict[str, Array]:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return (random.standard_normal(shape, np.float32) * 0.1).astype(np.float32)

    weights: dict[str, Array] = {"encoder/num_heads": np.array(2, np.int16)}
    norms = [f"{side}/layer_norm" for side in ("encoder", "decoder")]
    linears: dict[str, tuple[int, ...]] = {}
    for layer in ("encoder/layer_0", "decoder/layer_0"):
        norms += [f"{layer}/self_attention/layer_norm", f"{layer}/ffn/layer_norm"]
        linears |= {f"{layer}/self_attention/linear_0": (384, 128), f"{layer}/self_attention/linear_1": (128, 128)}
        linears |= {f"{layer}/ffn/linear_0": (512, 128), f"{layer}/ffn/linear_1": (128, 512)}
    norms.append("decoder/layer_0/attention/layer_norm")
    linears |= {f"decoder/layer_0/attention/linear_{i}": (width, 128) for i, width in enumerate((128, 256, 128))}
    linears |= {"encoder/conv1": (WIDTH, MELS, 3), "encoder/conv2": (WIDTH, WIDTH, 3)}
    for name, shape in linears.items():
        weights |= {f"{name}/weight": normal(*shape), f"{name}/bias": normal(shape[0])}
    for name in norms:
        weights |= {f"{name}/gamma": np.ones(WIDTH, np.float32), f"{name}/beta": normal(WIDTH)}
    weights["encoder/position_encodings/encodings"] = normal(50, WIDTH)
    weights["decoder/position_encodings/encodings"] = normal(448, WIDTH)
    weights["decoder/embeddings/weight"] = normal(VOCABULARY, WIDTH)
    return weights


def polyglot(folder: Path, *languages: str) -> WhisperProgram:
    card = catalogue.card("whisper-base").model_copy(update={"languages": list(languages)})
    return WhisperProgram.load(card, folder, Sessions(card.runtime, threads=1))


def test_languages_are_told_by_their_places_in_the_card(babel: Path) -> None:
    program = polyglot(babel, "en", "de", "jv")
    mel = np.random.default_rng(1).standard_normal((2, MELS, 40)).astype(np.float32)
    plain: Tensors = {"mel": mel, "beam_width": np.array([1, 1]), "want_text": np.array([0, 0])}
    heard, told = run(program, [plain, {**plain, "language": np.array([2, -1])}])
    assert heard["tokens"].shape == (2, 0)
    np.testing.assert_allclose(np.exp(heard["language_logprobs"]).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(heard["language"], heard["language_logprobs"].argmax(axis=1))
    assert told["language"].tolist() == [2, heard["language"][1]]


def test_a_card_with_other_languages_than_the_models_is_refused(babel: Path) -> None:
    with pytest.raises(ValueError, match="in its order: en, de, jv"):
        polyglot(babel, "de", "en", "jv")
