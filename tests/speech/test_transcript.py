"""What the outputs of a recognizer say: its text, how sure it is, in which language, and what else it may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from ortmesh.serving.store import Store
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh.serving.types import Array, Tensors
from ortmesh_speech.options import Options
from ortmesh_speech.transcript import Transcript, is_speech, joined, transcript_of
from ortmesh_speech.window import Window
from tests.speech.voices import silence

WINDOW = Window(silence(3), offset=9.6, speech=((10.0, 12.0),))


@pytest.fixture(scope="module")
def tokenizer(store: Store) -> Tokenizer:
    return load_tokenizer(store.root / "whisper-tiny-en" / "1" / "tokenizer.json")


def outputs(tokenizer: Tokenizer, text: str, logprob: float = -0.1, **more: Any) -> Tensors:
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    made: dict[str, Array] = {
        "tokens": np.array([tokens], np.int64),
        "mean_logprob": np.array([logprob], np.float32),
        "no_speech": np.array([0.01], np.float32),
    }
    return {**made, **{name: np.array([value]) for name, value in more.items()}}


def others(tokenizer: Tokenizer, *texts: tuple[str, float]) -> dict[str, Any]:
    """Other hypotheses, filled up with ends of text."""
    rows = [tokenizer.encode(text, add_special_tokens=False).ids for text, _ in texts]
    end, longest = tokenizer.token_to_id("<|endoftext|>"), max(map(len, rows))
    return {
        "alternatives": [row + [end] * (longest - len(row)) for row in rows],
        "alternative_logprobs": [logprob for _, logprob in texts],
    }


def test_the_text_of_a_window(tokenizer: Tokenizer) -> None:
    heard = transcript_of(WINDOW, outputs(tokenizer, " Good morning."), tokenizer, Options(), ["en"])
    assert heard is not None
    assert (heard.text, heard.start, heard.end, heard.language) == ("Good morning.", 10.0, 12.0, "en")
    assert heard.confidence == pytest.approx(np.exp(-0.1))


@pytest.mark.parametrize(
    ("asked", "place", "languages", "expected"),
    [
        ("", 1, ["en", "de"], "de"),
        ("en", 1, ["en", "de"], "en"),
        ("", -1, ["en", "de"], ""),
        ("", None, ["en", "de"], ""),
        ("", None, ["de"], "de"),
        ("", 0, [], ""),
    ],
)
def test_the_language_is_the_one_that_was_heard(
    asked: str, place: int | None, languages: list[str], expected: str, tokenizer: Tokenizer
) -> None:
    more = {} if place is None else {"language": place}
    heard = transcript_of(WINDOW, outputs(tokenizer, " So.", **more), tokenizer, Options(language=asked), languages)
    assert heard is not None
    assert heard.language == expected


def test_alternatives_are_each_given_once(tokenizer: Tokenizer) -> None:
    texts = [
        (" Good mourning.", -0.2),
        (" Good morning.", -0.3),
        (" Good mourning.", -0.4),
        (" Hm.", -0.5),
        ("", -np.inf),
    ]
    heard = transcript_of(
        WINDOW,
        outputs(tokenizer, " Good morning.", **others(tokenizer, *texts)),
        tokenizer,
        Options(alternatives=4),
        ["en"],
    )
    assert heard is not None
    assert [text for text, _ in heard.alternatives] == ["Good mourning.", "Hm."]


def test_a_rival_is_nearly_as_probable(tokenizer: Tokenizer) -> None:
    given = others(tokenizer, (" Good morning. How are you?", -0.15), (" Good morning. How are you? Well?", -0.9))
    heard = transcript_of(WINDOW, outputs(tokenizer, " Good morning.", **given), tokenizer, Options(), ["en"])
    assert heard is not None
    assert heard.rival == len("Good morning. How are you?")
    assert not heard.alternatives


@pytest.mark.parametrize(
    ("text", "mean_logprob", "no_speech", "judged", "expected"),
    [
        ("Good morning.", -0.2, 0.1, True, True),
        ("Good morning.", -0.2, 0.9, True, True),
        ("Thank you.", -0.67, 0.98, True, False),
        ("The youth are at the stage.", -1.1, 0.1, True, True),
        ("The youth are at the stage.", -1.1, 0.1, False, False),
        (". . .", -0.5, 0.1, True, False),
        ("I don't know. " * 40, -0.1, 0.1, True, False),
        ("", -0.1, 0.1, True, False),
    ],
)
def test_what_counts_as_speech(text: str, mean_logprob: float, no_speech: float, judged: bool, expected: bool) -> None:
    assert is_speech(text, mean_logprob, no_speech, judged=judged) is expected


def test_halves_are_joined() -> None:
    whole = joined(Transcript("One two.", 0.9, 1.0, 2.0, "en"), Transcript("Three f.", 0.4, 3.0, 4.0, "en"))
    assert (whole.text, whole.start, whole.end) == ("One two. Three f.", 1.0, 4.0)
    assert whole.confidence == pytest.approx(0.6)
