"""Whisper as a program: items that share a batch, leave it, are wrong, or come out badly."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from ortmesh.errors import BadInput, Cancelled, Expired
from ortmesh.serving.batcher import Pile
from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor import whisper_group
from ortmesh.serving.executor.program import ProgramExecutor
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.whisper import WhisperProgram
from ortmesh.serving.executor.whisper_decoder import Cross, Decoding, Graphs
from ortmesh.serving.executor.whisper_group import Group
from ortmesh.serving.executor.whisper_limits import TEMPERATURES
from ortmesh.serving.executor.whisper_request import Wish
from ortmesh.serving.executor.whisper_search import Offer
from ortmesh.serving.executor.whisper_window import Result, Window
from ortmesh.serving.store import Store
from ortmesh.serving.types import Array, NoMeter, Tensors
from ortmesh.serving.warmup import Capture, equal
from ortmesh_speech.log_mel import log_mel
from tests.speech.voices import SENTENCES, noise, say, silence, word_errors
from tests.speech.whisper_items import answered, decode, heard, item, load, text


@pytest.fixture(scope="module")
def program(store: Store) -> WhisperProgram:
    return load(store)


class Leaver(Capture):
    """A caller who is gone when it has been looked for a number of times."""

    def __init__(self, patience: int) -> None:
        super().__init__()
        self._patience = patience

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        self._patience -= 1
        return self._patience < 0


def said(program: WhisperProgram, answer: Capture, row: int = 0) -> str:
    assert answer.outputs is not None, answer.error
    return text(program, answer.outputs["tokens"][row])


def test_a_result_does_not_depend_on_the_batch(program: WhisperProgram) -> None:
    """Lengths, beams and order vary; texts are equal and probabilities as close as the card promises."""
    many = [
        heard(say(SENTENCES[0])),
        heard(say(SENTENCES[1]), beams=1),
        heard(say(SENTENCES[2]), seconds=12),
        heard(say(SENTENCES[3])),
        heard(silence(3)),
    ]
    alone = [answered(program, [tensors])[0].outputs for tensors in many]
    together = [answer.outputs for answer in answered(program, many)]
    backwards = [answer.outputs for answer in answered(program, many[::-1])][::-1]
    for one, *others in zip(alone, together, backwards, strict=True):
        assert one is not None
        assert all(other is not None and equal(one, other, 1e-3) for other in others)


def test_rows_of_one_item_are_windows_of_their_own(program: WhisperProgram) -> None:
    """As a caller of the Open Inference Protocol may send them; the shorter text is filled with ends of text."""
    mel = np.concatenate([log_mel(say(SENTENCES[4]), 10), log_mel(say(SENTENCES[3]), 10)])
    (answer,) = answered(program, [{"mel": mel, "beam_width": np.array([1, 3], np.int64)}])
    assert [word_errors(SENTENCES[4 - row], said(program, answer, row)) for row in (0, 1)] == [0, 0]
    assert answer.outputs is not None
    assert answer.outputs["tokens"].shape[0] == 2
    assert answer.outputs["mean_logprob"].shape == answer.outputs["no_speech"].shape == (2,)


def test_an_item_of_many_rows_is_decoded_a_few_at_a_time(
    program: WhisperProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at the second attempt, for which tiny rows become 30 s each: 128 of them together would take 3 GB."""
    widths: list[tuple[int, int]] = []

    class Watched(Decoding):
        def __init__(self, graphs: Graphs, group: Sequence[Cross]) -> None:
            widths.append((len(group), group[0].keys.shape[-1]))
            super().__init__(graphs, group)

    monkeypatch.setattr(whisper_group, "Decoding", Watched)
    rows = 10
    mel = np.random.default_rng(3).uniform(-1.5, 1.5, (rows, 80, 8)).astype(np.float32)
    (answer,) = answered(program, [{"mel": mel, "beam_width": np.full(rows, 8, np.int64)}])
    assert answer.outputs is not None
    assert answer.outputs["tokens"].shape[0] == rows
    assert max(width for width, _ in widths) == 4, "the card's max_rows"
    assert max(audio for _, audio in widths) == 1500, "some were tried a second time"


@pytest.mark.parametrize("patience", [0, 1, 4, 9])
def test_who_leaves_between_steps_costs_no_more_and_disturbs_nobody(program: WhisperProgram, patience: int) -> None:
    left, stayed = Capture(), Capture()
    tensors = heard(say(SENTENCES[4]))
    decode(program, [item(tensors, left, owner=Leaver(patience)), item(tensors, stayed)])
    assert isinstance(left.error, Cancelled)
    assert word_errors(SENTENCES[4], said(program, stayed)) == 0


def test_nobody_waits_for_all_attempts_at_what_another_said(
    program: WhisperProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six of them take seconds: who comes between two has a turn before the next."""
    ended: list[str] = []

    class Told(Capture):
        def __init__(self, name: str) -> None:
            super().__init__()
            self._name = name

        def finish(self, outputs: Tensors) -> None:
            super().finish(outputs)
            self._end()

        def fail(self, error: BaseException) -> None:
            super().fail(error)
            self._end()

        def _end(self) -> None:
            ended.append(self._name)
            if self._name == "backwards":
                pile.close()

    backwards, clear = Told("backwards"), Told("clear")
    pile, draw = Pile(), Group.draw

    def draw_and_ask(group: Group, temperature: float) -> None:
        draw(group, temperature)
        if temperature == TEMPERATURES[0]:
            pile.submit(item(heard(say(SENTENCES[4])), clear))

    monkeypatch.setattr(Group, "draw", draw_and_ask)
    pile.submit(item(heard(say(SENTENCES[0])[::-1].copy(), beams=1), backwards))
    ProgramExecutor(program, Sessions(Runtime(), threads=1), limit=4, meter=NoMeter()).serve(pile)
    assert ended == ["clear", "backwards"]
    assert word_errors(SENTENCES[4], said(program, clear)) == 0


def test_a_deadline_that_passes_ends_the_item(program: WhisperProgram) -> None:
    late, stayed = Capture(), Capture()
    tensors = heard(say(SENTENCES[4]))
    decode(program, [item(tensors, late, deadline=time.monotonic() - 1), item(tensors, stayed)])
    assert isinstance(late.error, Expired)
    assert word_errors(SENTENCES[4], said(program, stayed)) == 0


@pytest.mark.parametrize(
    ("mel", "beams", "field"),
    [
        (np.zeros((1, 80, 999), np.float32), [1], "mel"),
        (np.zeros((1, 80, 3002), np.float32), [1], "mel"),
        (np.zeros((1, 80, 0), np.float32), [1], "mel"),
        (np.zeros((1, 128, 1000), np.float32), [1], "mel"),
        (np.zeros((1, 80, 1000), np.float32), [0], "beam_width"),
        (np.zeros((1, 80, 1000), np.float32), [9], "beam_width"),
        (np.zeros((1, 80, 1000), np.float32), [1, 1], "beam_width"),
    ],
)
def test_wrong_tensors_are_their_callers_fault_alone(
    program: WhisperProgram, mel: Array, beams: list[int], field: str
) -> None:
    wrong, right = answered(program, [{"mel": mel, "beam_width": np.array(beams)}, heard(say(SENTENCES[4]), beams=1)])
    assert isinstance(wrong.error, BadInput)
    assert wrong.error.violations[0].field == field
    assert word_errors(SENTENCES[4], said(program, right)) == 0


def test_a_text_that_repeats_itself_is_decoded_again_with_more_silence(
    program: WhisperProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Speech in noise with no silence behind it makes Whisper go round in circles; the remedy ends them."""
    spoken = say(SENTENCES[4])
    loud = noise(len(spoken) / 16_000, level=float(np.sqrt(np.mean(spoken**2))), seed=4)
    tight = log_mel(spoken + loud, 6)[:, :, : len(spoken) // 320 * 2]
    tensors: Tensors = {"mel": tight, "beam_width": np.array([1], np.int64)}
    (answer,) = answered(program, [tensors])
    assert word_errors(SENTENCES[4], said(program, answer)) == 0
    monkeypatch.setattr(Result, "good", True)
    (unremedied,) = answered(program, [tensors])
    assert word_errors(SENTENCES[4], said(program, unremedied)) > 15


def test_silence_is_added_as_if_it_had_followed_the_samples() -> None:
    for samples in (say(SENTENCES[0]), silence(3), noise(3)):
        window = Window(item(heard(samples), Capture()), log_mel(samples, 10), Wish(beams=5))
        window.frames = 3000
        np.testing.assert_allclose(window.padded()[:, :, 1001:], log_mel(samples, 30)[:, :, 1001:], atol=1e-6)
        np.testing.assert_allclose(window.padded()[:, :, :998], log_mel(samples, 30)[:, :, :998], atol=1e-6)


def test_warm_up_is_short(program: WhisperProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few tokens: a text that does not end has 220, and is tried again six times."""
    steps: list[int] = []

    class Counted(Decoding):
        def step(self, tokens: Sequence[int], parents: Sequence[int], probes: Iterable[int] = ()) -> Offer:
            steps.append(len(tokens))
            return super().step(tokens, parents, probes)

    monkeypatch.setattr(whisper_group, "Decoding", Counted)
    answers = answered(program, program.samples())
    assert all(answer.outputs is not None for answer in answers)
    assert 1 <= len(steps) <= 8
