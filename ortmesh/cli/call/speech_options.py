"""Options of the commands that write down what is said, in recordings and streams. Stage: command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from ortmesh.cli.call.numbers import int32
from ortmesh.speech.v1 import speech_pb2

RANGE = re.compile(r"(\d+)(?:-(\d+))?")

Beam = Annotated[int, typer.Option(help="Hypotheses side by side, 1 to 8.", show_default="the model's")]
Language = Annotated[
    str, typer.Option(help="The language that is spoken, e.g. en or de.", show_default="what the model hears")
]
Phrases = Annotated[
    list[str] | None, typer.Option(help="A word or name to be expected; again for more.", show_default=False)
]
Boost = Annotated[float, typer.Option(help="How much phrases are favoured, up to 10.", show_default="2")]
Prompt = Annotated[
    str, typer.Option(help="Text that comes before: names and spelling are taken from it.", show_default=False)
]
Alternatives = Annotated[int, typer.Option(help="Other transcripts of each stretch, 0 to 7 and fewer than --beam.")]


def recognition_options(
    *, language: str, words: bool, alternatives: int, phrases: Sequence[str] | None, boost: float, prompt: str
) -> speech_pb2.RecognitionOptions:
    """What a recognizer is told and asked for; whether the numbers are in range the service says."""
    return speech_pb2.RecognitionOptions(
        language=language,
        word_times=words,
        max_alternatives=int32(alternatives),
        phrases=[speech_pb2.Phrase(text=text, boost=boost) for text in phrases or []],
        initial_prompt=prompt,
    )


def diarization(speakers: str) -> speech_pb2.Diarization:
    """How many people speak, of a text like `2` or `1-8`. typer.BadParameter for any other."""
    found = RANGE.fullmatch(speakers.strip())
    if found is None:
        raise typer.BadParameter(f"{speakers!r}: expected a number as 2, or a range as 1-8", param_hint="--speakers")
    least, most = int(found[1]), int(found[2] or found[1])
    return speech_pb2.Diarization(min_speakers=int32(least), max_speakers=int32(most))
