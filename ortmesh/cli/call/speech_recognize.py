"""`ortmesh call speech recognize`: what is said, as a table, text, JSON or subtitles. Stage: command line."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from ortmesh.cli.answers import print_json, print_model, table
from ortmesh.cli.call.numbers import int32
from ortmesh.cli.call.speech_options import (
    Alternatives,
    Beam,
    Boost,
    Language,
    Phrases,
    Prompt,
    diarization,
    recognition_options,
)
from ortmesh.cli.clock import clock
from ortmesh.cli.console import out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, Address, InputFile, Json, Model, Timeout, read
from ortmesh.cli.subtitles import speaker_name, srt, vtt
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2

SECONDS = 600.0
"""An hour of speech takes minutes."""


class Format(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


def recognize(
    file: InputFile,
    form: Annotated[
        Format, typer.Option("--format", help="For a person, the transcript alone, for machines, or subtitles.")
    ] = Format.TABLE,
    words: Annotated[
        bool | None,
        typer.Option(
            "--words/--no-words",
            help="With each word's time and confidence. By default for subtitles.",
            show_default=False,
        ),
    ] = None,
    language: Language = "",
    phrase: Phrases = None,
    boost: Boost = 0.0,
    prompt: Prompt = "",
    alternatives: Alternatives = 0,
    speakers: Annotated[
        str, typer.Option(help="Say who speaks; so many people do, as 2 or 1-8, at most 20.", show_default=False)
    ] = "",
    beam: Beam = 0,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> None:
    """Write down what is said in a recording: WAV, FLAC, Ogg, MP3, AIFF.

    \b
    [bold]Examples[/bold]
      ortmesh call speech recognize talk.wav
      ortmesh call speech recognize talk.wav --format srt > talk.srt
      ortmesh call speech recognize call.wav --speakers 2 --phrase Kowalski
    """
    if as_json and form not in (Format.TABLE, Format.JSON):
        raise typer.BadParameter(f"--json and --format {form} exclude each other")
    form = Format.JSON if as_json else form
    options = recognition_options(
        language=language,
        words=form in (Format.SRT, Format.VTT) if words is None else words,
        alternatives=alternatives,
        phrases=phrase,
        boost=boost,
        prompt=prompt,
    )
    if speakers:
        options.diarization.CopyFrom(diarization(speakers))
    audio = speech_pb2.Audio(encoded=read(file))
    request = speech_pb2.RecognizeRequest(model=model, audio=audio, beam_width=int32(beam), options=options)
    with call_errors_in_words(address, as_json=form is Format.JSON), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.speech.Recognize(request)
    show(answer, form)


def show(answer: speech_pb2.RecognizeResponse, form: Format) -> None:
    """Writes the answer to standard output."""
    if form is Format.JSON:
        print_json(answer)
    elif form is Format.TEXT:
        for segment in answer.segments:
            typer.echo(f"{speaker_name(segment.speaker)}: " * bool(segment.speaker) + segment.transcript)
    elif form is Format.TABLE:
        show_table(answer)
    else:
        typer.echo((srt if form is Format.SRT else vtt)(answer.segments), nl=False)


def show_table(answer: speech_pb2.RecognizeResponse) -> None:
    """A row for each stretch; below it, faint, other transcripts and the words, as far as they were asked for."""
    print_model(answer.model)
    who = any(segment.speaker for segment in answer.segments)
    columns = ["FROM", "TO", "CONFIDENCE", *(["SPEAKER"] if who else []), "TRANSCRIPT"]
    listing = table(*columns, right=["FROM", "TO", "CONFIDENCE"])
    for segment in answer.segments:
        start, end, speaker = clock(segment.start.ToTimedelta()), clock(segment.end.ToTimedelta()), [segment.speaker]
        listing.add_row(start, end, f"{segment.confidence:.2f}", *speaker * who, escape(segment.transcript))
        for other in segment.alternatives:
            row = ("", "", f"{other.confidence:.2f}", *[""] * who, f"or: {escape(other.transcript)}")
            listing.add_row(*row, style="dim")
        for word in segment.words:
            times = clock(word.start.ToTimedelta()), clock(word.end.ToTimedelta())
            listing.add_row(*times, f"{word.confidence:.2f}", *[""] * who, escape(word.text), style="dim")
    out.print(listing if answer.segments else "nothing was said")
