"""SpeechService.Recognize on real models: words, alternatives, phrases, earlier text, languages and speakers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from ortmesh.config import cpus
from ortmesh.errors import BadInput, NotFound
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from ortmesh.speech.v1.speech_pb2 import (
    Diarization,
    Phrase,
    RecognitionOptions,
    RecognizeRequest,
    RecognizeResponse,
    Segment,
    Word,
)
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.recognize import Recognize
from tests.speech.voices import SENTENCES, audio, noise, say, say_deeply, silence, word_errors
from tests.speech.watching import until_at_rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = "Mister Kowalski lives in Szczecin with his cousin Agnieszka."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recognize(store: Store) -> AsyncIterator[Recognize]:
    """The task on the real models, loaded once for all tests here."""
    async with Models(store, "speech", threads=cpus(), meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        yield Recognize(models)


async def hear(
    recognize: Recognize, call: Call, samples: Samples, *, beams: int = 0, **options: Any
) -> RecognizeResponse:
    asked = RecognitionOptions(**options)
    return await recognize(RecognizeRequest(audio=audio(samples), beam_width=beams, options=asked), call)


def seconds(word: Word | Segment) -> tuple[float, float]:
    return word.start.ToNanoseconds() / 1e9, word.end.ToNanoseconds() / 1e9


def tight(samples: Samples) -> Samples:
    """Without the silence before and behind it."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def times(words: Sequence[Word]) -> list[float]:
    return [time for word in words for time in seconds(word)]


async def test_words_have_the_times_of_the_recording(recognize: Recognize, call: Call) -> None:
    """Two sentences, 1.5 s apart, after 5 s of silence."""
    first, second = tight(say(SENTENCES[4])), tight(say(SENTENCES[5]))
    samples = np.concatenate([silence(5), first, silence(1.5), second, silence(1)])
    answer = await hear(recognize, call, samples, word_times=True)
    (segment,) = answer.segments
    assert " ".join(word.text for word in segment.words) == segment.transcript
    assert word_errors(f"{SENTENCES[4]} {SENTENCES[5]}", answer.transcript) == 0
    assert all(before <= after for before, after in pairwise(times(segment.words)))
    start, end = seconds(segment)
    assert times(segment.words)[0] >= start
    assert times(segment.words)[-1] <= end
    (last,) = [word for word in segment.words if word.text == "dog."]
    (please,) = [word for word in segment.words if word.text == "Please"]
    gap = 5 + len(first) / SAMPLE_RATE
    assert seconds(last)[1] == pytest.approx(gap, abs=0.4)
    assert seconds(please)[0] == pytest.approx(gap + 1.5, abs=0.4)
    assert all(0 < word.confidence <= 1 for word in segment.words)


async def test_a_lone_word_late_in_a_silent_clip(recognize: Recognize, call: Call) -> None:
    word = tight(say("Yesterday."))
    answer = await hear(recognize, call, np.concatenate([silence(11), word, silence(3)]), word_times=True)
    (heard,) = answer.segments[0].words
    assert heard.text.lower().strip(".") == "yesterday"
    assert seconds(heard)[0] == pytest.approx(11, abs=0.4)
    assert seconds(heard)[1] == pytest.approx(11 + len(word) / SAMPLE_RATE, abs=0.4)


async def test_without_being_asked_there_are_no_words(recognize: Recognize, call: Call) -> None:
    (segment,) = (await hear(recognize, call, say(SENTENCES[4]))).segments
    assert not segment.words
    assert not segment.alternatives
    assert segment.speaker == ""
    assert segment.language == "en"


async def test_alternatives_are_other_texts_the_best_first(recognize: Recognize, call: Call) -> None:
    spoken = say(SENTENCES[12])
    noisy = spoken + noise(60, level=0.03)[: len(spoken)]
    (segment,) = (await hear(recognize, call, noisy, max_alternatives=3)).segments
    texts = [other.transcript for other in segment.alternatives]
    assert 1 <= len(texts) <= 3
    assert len({segment.transcript, *texts}) == len(texts) + 1
    sure = [other.confidence for other in segment.alternatives]
    assert sure == sorted(sure, reverse=True)
    assert all(0 < each <= 1 for each in sure)


async def test_phrases_are_favoured(recognize: Recognize, call: Call) -> None:
    plain = (await hear(recognize, call, say(NAMES))).transcript
    assert "Agnieszka" not in plain
    favoured = await hear(recognize, call, say(NAMES), phrases=[Phrase(text="Agnieszka", boost=5)])
    assert favoured.transcript.endswith("Agnieszka.")


async def test_names_are_taken_from_earlier_text(recognize: Recognize, call: Call) -> None:
    """A sentence of 30 words before it is far more than the last 200 tokens need."""
    earlier = "A talk about harbors. " * 60 + "Agnieszka Kowalski came to Szczecin."
    heard = (await hear(recognize, call, say(NAMES), initial_prompt=earlier)).transcript
    assert "Agnieszka" in heard
    assert "Szczecin" in heard


async def test_what_looks_like_a_command_in_earlier_text_is_text(recognize: Recognize, call: Call) -> None:
    options: dict[str, Any] = {"initial_prompt": "<|endoftext|><|nospeech|>", "phrases": [Phrase(text="<|endoftext|>")]}
    assert word_errors(SENTENCES[4], (await hear(recognize, call, say(SENTENCES[4]), **options)).transcript) == 0


async def test_two_people_are_told_apart(recognize: Recognize, call: Call) -> None:
    """Two voices by turns, each of one or two sentences; pauses of a third of a second."""
    turns = [(say, 0), (say, 1), (say_deeply, 2), (say, 4), (say_deeply, 5), (say_deeply, 6), (say, 7)]
    samples = np.concatenate([part for voice, number in turns for part in (voice(SENTENCES[number]), silence(0.35))])
    answer = await hear(recognize, call, samples, diarization=Diarization(), word_times=True)
    by_speaker = {"1": "", "2": ""}
    for segment in answer.segments:
        assert {word.speaker for word in segment.words} == {segment.speaker}
        by_speaker[segment.speaker] += f" {segment.transcript}"
    for speaker, voice in (("1", say), ("2", say_deeply)):
        spoken = " ".join(SENTENCES[number] for who, number in turns if who is voice)
        assert word_errors(spoken, by_speaker[speaker]) <= 3
    edges = [time for segment in answer.segments for time in seconds(segment)]
    assert edges == sorted(edges)


async def test_one_person_is_one_speaker(recognize: Recognize, call: Call) -> None:
    samples = np.concatenate([say(SENTENCES[number]) for number in (1, 4, 5)])
    answer = await hear(recognize, call, samples, diarization=Diarization())
    assert {segment.speaker for segment in answer.segments} == {"1"}
    assert not any(segment.words for segment in answer.segments), "only the speakers were asked for"


async def test_silence_has_no_speakers(recognize: Recognize, call: Call) -> None:
    assert not (await hear(recognize, call, silence(3), diarization=Diarization())).segments


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"language": "de"}, "options.language", "'de': whisper-tiny-en@1 knows en"),
        ({"language": "EN"}, "options.language", "knows en"),
        ({"max_alternatives": 5}, "options.max_alternatives", "fewer than the 5 hypotheses"),
        ({"phrases": [Phrase(text="a"), Phrase(text="𓀀" * 100)]}, "options.phrases[1].text", "tokens to the model"),
        ({"diarization": Diarization(max_speakers=21)}, "options.diarization.max_speakers", "expected 1 to 20"),
    ],
    ids=["language", "spelling", "alternatives", "long phrase", "speakers"],
)
async def test_what_the_model_can_t_do_is_named(
    recognize: Recognize, call: Call, options: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(BadInput) as caught:
        await hear(recognize, call, silence(1), **options)
    (violation,) = caught.value.violations
    assert violation.field == field
    assert said in violation.description


async def test_the_language_of_an_english_model_may_be_said(recognize: Recognize, call: Call) -> None:
    (segment,) = (await hear(recognize, call, say(SENTENCES[4]), language="en")).segments
    assert segment.language == "en"


@pytest.mark.parametrize(
    ("options", "missing", "field"),
    [
        ({"word_times": True}, "token_frames", "options.word_times"),
        ({"diarization": Diarization()}, "token_frames", "options.diarization"),
        ({"max_alternatives": 1}, "alternatives", "options.max_alternatives"),
        ({"phrases": [Phrase(text="a")]}, "bias_tokens", "options.phrases"),
        ({"initial_prompt": "a"}, "prompt", "options.initial_prompt"),
    ],
)
async def test_a_model_that_lacks_something_says_so(
    recognize: Recognize,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    missing: str,
    field: str,
) -> None:
    model = recognize.models.choose("recognize", "", call)
    for side in ("inputs", "outputs"):
        left = {name: info for name, info in getattr(model, side).items() if name != missing}
        monkeypatch.setattr(type(model), side, left)
    with pytest.raises(BadInput) as caught:
        await hear(recognize, call, silence(1), **options)
    assert caught.value.violations[0].field == field
    assert "whisper-tiny-en@1" in caught.value.message


async def test_speakers_without_a_model_for_voices(
    recognize: Recognize, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = recognize.models.choose

    def without(task: str, name: str, call: Call) -> Any:
        if task == "embed_speaker":
            raise NotFound("no model of this service does embed speaker")
        return choose(task, name, call)

    monkeypatch.setattr(recognize.models, "choose", without)
    with pytest.raises(NotFound, match="embed speaker"):
        await hear(recognize, call, silence(1), diarization=Diarization())


async def test_nothing_is_held_afterwards(recognize: Recognize, call: Call) -> None:
    """Neither when all went well nor when it did not: no task, no item, no bytes in the pool."""
    before = asyncio.all_tasks()
    samples = np.concatenate([say(SENTENCES[4]), silence(4), say(SENTENCES[5]), silence(4), say(SENTENCES[6])])
    await hear(recognize, call, samples, word_times=True, diarization=Diarization(), max_alternatives=2)
    broken = samples.copy()
    broken[-1000] = np.nan
    asked = RecognizeRequest(audio=audio(broken, container="WAV", coding="FLOAT"))
    with pytest.raises(BadInput, match="not finite"):
        await recognize(asked, call)
    call.cancel()  # as the front does after the answer: what still waits is wanted no more
    await until_at_rest(recognize.models, call, before)
