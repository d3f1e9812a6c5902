"""Options: what a recognizer is asked for, checked without knowing the model. Stage: task."""

from __future__ import annotations

from dataclasses import dataclass

from ortmesh.errors import BadInput
from ortmesh.speech.v1 import speech_pb2

MAX_ALTERNATIVES = 7
MAX_PHRASES = 100
MAX_PHRASE_CHARACTERS = 100
MAX_BOOST = 10.0
DEFAULT_BOOST = 2.0
MAX_PROMPT_CHARACTERS = 2_000
MAX_SPEAKERS = 20
DEFAULT_SPEAKERS = 8


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that are favoured."""

    text: str
    boost: float
    """Of each of its tokens, in natural logarithms of probability."""


@dataclass(frozen=True, slots=True)
class Speakers:
    """How many people may speak."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for besides the text. `ortmesh.speech.v1.RecognitionOptions` says what each means."""

    language: str = ""
    words: bool = False
    alternatives: int = 0
    phrases: tuple[Phrase, ...] = ()
    prompt: str = ""
    speakers: Speakers | None = None
    """None where nobody asks who speaks."""


def options_of(given: speech_pb2.RecognitionOptions, field: str = "options") -> Options:
    """The options of a request, whose field of that name they are. BadInput names what is out of range."""
    if not 0 <= given.max_alternatives <= MAX_ALTERNATIVES:
        reason = f"{given.max_alternatives}: expected 0 to {MAX_ALTERNATIVES}"
        raise BadInput(f"{field}.max_alternatives", reason)
    if len(given.phrases) > MAX_PHRASES:
        raise BadInput(f"{field}.phrases", f"{len(given.phrases)} phrases: expected at most {MAX_PHRASES}")
    if len(given.initial_prompt) > MAX_PROMPT_CHARACTERS:
        reason = f"{len(given.initial_prompt):,} characters: expected at most {MAX_PROMPT_CHARACTERS:,}"
        raise BadInput(f"{field}.initial_prompt", reason)
    return Options(
        language=given.language,
        words=given.word_times,
        alternatives=given.max_alternatives,
        phrases=tuple(_phrase(each, f"{field}.phrases[{place}]") for place, each in enumerate(given.phrases)),
        prompt=given.initial_prompt,
        speakers=_speakers(given.diarization, f"{field}.diarization") if given.HasField("diarization") else None,
    )


def check_alternatives(alternatives: int, beams: int, field: str = "options") -> None:
    """BadInput unless they are fewer than the hypotheses that are followed."""
    if alternatives >= beams:
        reason = f"{alternatives}: expected fewer than the {beams} hypotheses of beam_width"
        raise BadInput(f"{field}.max_alternatives", reason)


def _phrase(given: speech_pb2.Phrase, field: str) -> Phrase:
    text = given.text.strip()
    if not text:
        raise BadInput(f"{field}.text", "is empty: expected words")
    if len(given.text) > MAX_PHRASE_CHARACTERS:
        raise BadInput(f"{field}.text", f"{len(given.text)} characters: expected at most {MAX_PHRASE_CHARACTERS}")
    if not 0 <= given.boost <= MAX_BOOST:  # what is not a number neither
        raise BadInput(
            f"{field}.boost", f"{given.boost:g}: expected 0 to {MAX_BOOST:g}, where 0 means {DEFAULT_BOOST:g}"
        )
    return Phrase(text, given.boost or DEFAULT_BOOST)


def _speakers(given: speech_pb2.Diarization, field: str) -> Speakers:
    for name, count, default in (
        ("min_speakers", given.min_speakers, 1),
        ("max_speakers", given.max_speakers, DEFAULT_SPEAKERS),
    ):
        if not 0 <= count <= MAX_SPEAKERS:
            raise BadInput(f"{field}.{name}", f"{count}: expected 1 to {MAX_SPEAKERS}, or 0 for {default}")
    least = given.min_speakers or 1
    most = given.max_speakers or max(DEFAULT_SPEAKERS, least)
    if least > most:
        raise BadInput(f"{field}.min_speakers", f"{least}: expected at most the {most} of max_speakers")
    return Speakers(least, most)
