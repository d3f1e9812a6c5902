"""When words are said: the path through attention, and words with known onsets."""

from __future__ import annotations

import numpy as np
import pytest

from ortmesh.serving.executor.whisper import WhisperProgram
from ortmesh.serving.executor.whisper_align import frames_of, heard_frames
from ortmesh.serving.store import Store
from ortmesh.serving.types import Array
from ortmesh_speech.audio import Samples
from ortmesh_speech.log_mel import log_mel
from tests.speech.voices import noise, say, silence
from tests.speech.whisper_items import heard, load, run, text

CLOSE = 0.15


@pytest.fixture(scope="module")
def program(store: Store) -> WhisperProgram:
    return load(store)


def trimmed(phrase: str) -> Samples:
    """A phrase without the silence around it, so that its onset is known."""
    spoken = say(phrase)
    loud = np.flatnonzero(np.abs(spoken) > 0.01)
    return spoken[loud[0] : loud[-1] + 1]


def times(program: WhisperProgram, samples: Samples) -> list[tuple[str, float, float]]:
    """Words with their begins and ends in seconds."""
    (outputs,) = run(program, [heard(samples, want_words=1)])
    words: list[tuple[str, float, float]] = []
    for token, (begin, end) in zip(outputs["tokens"][0], outputs["token_frames"][0].tolist(), strict=True):
        written = text(program, [token])
        if written.startswith(" ") or not words:
            words.append((written.strip(), begin / 50, end / 50))
        else:
            words[-1] = (words[-1][0] + written, words[-1][1], max(words[-1][2], end / 50))
    return words


@pytest.mark.parametrize("at", [1.0, 4.0, 6.5])
def test_a_lone_word_late_in_silence_has_its_own_time(program: WhisperProgram, at: float) -> None:
    word = trimmed("Elephant.")
    first, *_, last = times(program, np.concatenate([silence(at), word, silence(1)])) * 2
    assert first[1] == pytest.approx(at, abs=CLOSE)
    assert last[2] == pytest.approx(at + len(word) / 16_000, abs=CLOSE)


@pytest.mark.parametrize("level", [0.0, 0.01])
def test_words_after_pauses_begin_when_they_are_said(program: WhisperProgram, level: float) -> None:
    """Three phrases with pauses of 0.6 and 2 s, clean and in noise: none begins in the pause before it."""
    parts = [trimmed(phrase) for phrase in ("Bread and soup.", "The door is open.", "We saw the river.")]
    samples = np.concatenate([silence(0.5), parts[0], silence(0.6), parts[1], silence(2), parts[2], silence(0.5)])
    words = times(program, samples + noise(len(samples) / 16_000, level))
    ends = np.cumsum([0.5, len(parts[0]) / 16_000, 0.6, len(parts[1]) / 16_000, 2, len(parts[2]) / 16_000])
    begins = {word: begin for word, begin, _ in reversed(words)}  # the model says the last phrase twice
    assert [begins[word] for word in ("Bread", "The", "We")] == pytest.approx([ends[0], ends[2], ends[4]], abs=CLOSE)
    spoken = {word: end for word, _, end in reversed(words)}
    assert [spoken[word] for word in ("soup.", "open.", "river.")] == pytest.approx(
        [ends[1], ends[3], ends[5]], abs=2 * CLOSE
    )


def test_words_follow_each_other(program: WhisperProgram) -> None:
    words = times(program, say("The quick brown fox jumps over the lazy dog."))
    assert [word for word, *_ in words] == ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog."]
    flat = [time for _, begin, end in words for time in (begin, end)]
    assert flat == sorted(flat)
    assert all(end > begin for _, begin, end in words)


def test_who_asks_for_no_words_gets_no_times(program: WhisperProgram) -> None:
    with_words, without = run(program, [heard(say("Come here."), want_words=1), heard(say("Come here."))])
    assert without["token_frames"].shape == (1, 0, 2)
    assert with_words["token_frames"].shape == (1, with_words["tokens"].shape[1], 2)
    np.testing.assert_array_equal(with_words["tokens"], without["tokens"])


def looks(begins: list[int], frames: int) -> Array:
    """Attention [1, rows, frames] of one head that follows the speech exactly."""
    attention = np.full((1, len(begins), frames), 1e-4, np.float32)
    for row, (begin, end) in enumerate(zip(begins, [*begins[1:], frames], strict=True)):
        attention[0, row, begin:end] = 1
    shares: Array = attention / attention.sum(-1, keepdims=True)
    return shares


def test_pauses_belong_to_no_token_and_punctuation_has_no_length() -> None:
    """Word, full stop, word: loud for 20 frames, quiet for 60, loud again."""
    heard_at = np.zeros(120, bool)
    heard_at[10:30] = heard_at[90:110] = True
    found = frames_of(looks([0, 35, 92, 112], 120), [True, False, True], heard_at)
    assert found.tolist() == [[10, 30], [30, 30], [90, 110]]


def test_a_text_of_more_tokens_than_frames_is_spread_evenly() -> None:
    found = frames_of(np.full((2, 11, 5), 0.2, np.float32), [True] * 10, np.ones(5, bool))
    assert found.shape == (10, 2)
    assert found.min() == 0
    assert found.max() == 5


def test_frames_are_loud_where_somebody_speaks_and_nowhere_in_silence() -> None:
    spoken = trimmed("Come here.")
    loud = heard_frames(log_mel(np.concatenate([silence(2), spoken, silence(2)]), 10)[0])
    assert np.flatnonzero(loud)[[0, -1]].tolist() == pytest.approx([100, 100 + len(spoken) // 320], abs=4)
    assert not heard_frames(log_mel(silence(3), 10)[0]).any()
