"""`ortmesh call speech recognize`: what is said, as a table, text, JSON or subtitles. Stage: command line."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from ortmesh.cli.answers import print_json, print_model, table
from ortmesh.cli.clock import clock
from ortmesh.cli.console import out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, Address, InputFile, Json, Model, Timeout, read
from ortmesh.cli.subtitles import speaker_name, srt, vtt
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2

SECONDS = 600.0
"""An hour of speech takes minutes."""
RANGE = re.compile(r"(\d+)(?:-(\d+))?")


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
        Format, typer.Option("--format", help="For a person, as the transcript alone, or as subtitles.")
    ] = Format.TABLE,
    words: Annotated[
        bool | None,
        typer.Option("--words/--no-words", help="With each word's time. By default for subtitles.", show_default=False),
    ] = None,
    language: Annotated[str, typer.Option(help="The language that is spoken, e.g. en or de.", show_default=False)] = "",
    phrase: Annotated[
        list[str] | None, typer.Option(help="A word or name to be expected; again for more.", show_default=False)
    ] = None,
    boost: Annotated[float, typer.Option(help="How much phrases are favoured, 0 to 10; 0 means 2.")] = 0.0,
    prompt: Annotated[
        str, typer.Option(help="Text that comes before: names and spelling are taken from it.", show_default=False)
    ] = "",
    alternatives: Annotated[int, typer.Option(help="Other transcripts of each stretch, 0 to 7.")] = 0,
    speakers: Annotated[
        str, typer.Option(help="Say who speaks: so many people, as 2 or 1-8.", show_default=False)
    ] = "",
    beam: Annotated[int, typer.Option(help="Hypotheses side by side, 1 to 8. By default the model's.")] = 0,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> None:
    """Write down what is said in a recording: WAV, FLAC, Ogg, MP3, AIFF.

    \b
    [bold]Example[/bold]
      ortmesh call speech recognize talk.wav
      ortmesh call speech recognize talk.wav --format srt > talk.srt
      ortmesh call speech recognize call.wav --speakers 2 --phrase Kowalski
    """
    if as_json and form not in (Format.TABLE, Format.JSON):
        raise typer.BadParameter(f"--json and --format {form} exclude each other")
    form = Format.JSON if as_json else form
    options = speech_pb2.RecognitionOptions(
        language=language,
        word_times=form in (Format.SRT, Format.VTT) if words is None else words,
        max_alternatives=alternatives,
        phrases=[speech_pb2.Phrase(text=text, boost=boost) for text in phrase or []],
        initial_prompt=prompt,
        diarization=diarization(speakers) if speakers else None,
    )
    audio = speech_pb2.Audio(encoded=read(file))
    request = speech_pb2.RecognizeRequest(model=model, audio=audio, beam_width=beam, options=options)
    with call_errors_in_words(address, as_json=form is Format.JSON), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.speech.Recognize(request)
    show(answer, form)


def diarization(speakers: str) -> speech_pb2.Diarization:
    """How many people speak, of a text like `2` or `1-8`. typer.BadParameter for any other."""
    found = RANGE.fullmatch(speakers.strip())
    if found is None:
        raise typer.BadParameter(f"{speakers!r}: expected a number as 2, or a range as 1-8", param_hint="--speakers")
    least, most = int(found[1]), int(found[2] or found[1])
    return speech_pb2.Diarization(min_speakers=min(least, 2**31 - 1), max_speakers=min(most, 2**31 - 1))


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
