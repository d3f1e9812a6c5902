"""Words: tokens joined at spaces, each with its punctuation, in order and within the speech."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ortmesh.serving.store import Store
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh_speech.words import Stretch, TimedWord, confidence, utterances, words_of


@pytest.fixture(scope="module")
def tokenizer(store: Store) -> Tokenizer:
    return load_tokenizer(store.root / "whisper-tiny-en" / "1" / "tokenizer.json")


def words(
    text: str,
    tokenizer: Tokenizer,
    *,
    language: str = "en",
    offset: float = 0.0,
    speech: Sequence[Stretch] = ((0.0, 1000.0),),
    frames: Sequence[tuple[int, int]] | None = None,
) -> list[TimedWord]:
    """The words of a text, each of whose tokens takes 0.2 s."""
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    each = frames or [(10 * place, 10 * place + 10) for place in range(len(tokens))]
    logprobs = [-0.1] * len(tokens)
    return words_of(tokens, each, logprobs, tokenizer, offset=offset, speech=speech, language=language)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" In the morning, we left.", ["In", "the", "morning,", "we", "left."]),
        (' He said "good morning" - twice; 3.5% of $20!', None),
        (" unbelievably extraordinary", ["unbelievably", "extraordinary"]),
        (" naïve café 日本語 👍🏽 ok", ["naïve", "café", "日本語 👍🏽", "ok"]),
        (" - well", ["- well"]),
        (" wait ... what", ["wait ...", "what"]),
        (" ...", ["..."]),
    ],
)
def test_words_are_whole(text: str, expected: list[str] | None, tokenizer: Tokenizer) -> None:
    found = [word.text for word in words(text, tokenizer)]
    assert " ".join(found) == text.strip()
    assert expected is None or found == expected


def test_where_no_spaces_are_written_characters_count(tokenizer: Tokenizer) -> None:
    found = words("今日は、いい。", tokenizer, language="ja")
    assert [word.text for word in found] == ["今", "日", "は、", "い", "い。"]


def test_a_word_lasts_from_its_first_token_to_its_last(tokenizer: Tokenizer) -> None:
    frames = [(0, 20), (30, 40), (40, 40)]
    first, second = words(" Well now.", tokenizer, offset=60.0, speech=[(60.0, 61.0)], frames=frames)
    assert (first.start, first.end) == pytest.approx((60.0, 60.4))
    assert (second.start, second.end) == pytest.approx((60.6, 60.8))


def test_a_word_does_not_go_across_a_pause(tokenizer: Tokenizer) -> None:
    """What the decoder gives to "the" is said, then 2 s of silence follow."""
    frames = [(0, 10), (10, 125), (130, 140)]
    found = words(" in the end", tokenizer, speech=[(0.0, 0.4), (2.4, 3.0)], frames=frames)
    assert [word.end for word in found] == pytest.approx([0.2, 0.5, 2.8])
    assert found[2].start == pytest.approx(2.6)


@given(
    spans=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=3, max_size=3),
    offset=st.floats(0, 100),
)
def test_words_are_in_order_and_within_the_speech(
    spans: list[tuple[int, int]], offset: float, tokenizer: Tokenizer
) -> None:
    speech = [(offset + 0.2, offset + 0.9), (offset + 1.4, offset + 1.8)]
    found = words(" in the end", tokenizer, offset=offset, speech=speech, frames=spans)
    times = [time for word in found for time in (word.start, word.end)]
    assert all(before <= after for before, after in pairwise([speech[0][0], *times, speech[-1][1]]))


def test_nothing_said_has_no_words(tokenizer: Tokenizer) -> None:
    assert words("", tokenizer) == []


def test_confidence_is_the_tokens_mean_probability() -> None:
    assert confidence([-0.1, -0.3]) == pytest.approx(0.8187, abs=1e-4)
    assert confidence([0.0, 1e-6]) == 1.0
    assert confidence([]) == 0.0


def test_utterances_are_parted_by_pauses() -> None:
    assert utterances([(0, 1), (1.2, 2), (2.4, 3)]) == [(0, 2), (2.4, 3)]
