"""`ortmesh call speech`: tasks on speech. Stage: command line."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape

from ortmesh.cli.answers import print_json, print_model, table
from ortmesh.cli.console import out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, Address, InputFile, Json, Model, Timeout, read
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2

RECOGNIZE_SECONDS = 600.0
"""An hour of speech takes minutes."""
DETECT_SECONDS = 300.0

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Tasks on speech.")


@app.callback()
def speech() -> None:
    """Tasks on speech."""


@app.command()
def recognize(
    file: InputFile,
    beam: Annotated[int, typer.Option(help="Hypotheses side by side, 1 to 8. By default the model's.")] = 0,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = RECOGNIZE_SECONDS,
    as_json: Json = False,
) -> None:
    """Write down what is said in a recording: WAV, FLAC, Ogg, MP3, AIFF.

    \b
    [bold]Example[/bold]
      ortmesh call speech recognize talk.wav
    """
    audio = speech_pb2.Audio(encoded=read(file))
    request = speech_pb2.RecognizeRequest(model=model, audio=audio, beam_width=beam)
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.speech.Recognize(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    listing = table("FROM", "TO", "CONFIDENCE", "TRANSCRIPT", right=["FROM", "TO", "CONFIDENCE"])
    for segment in answer.segments:
        start, end = segment.start.ToTimedelta(), segment.end.ToTimedelta()
        listing.add_row(clock(start), clock(end), f"{segment.confidence:.2f}", escape(segment.transcript))
    out.print(listing if answer.segments else "nothing was said")


@app.command("detect-speech")
def detect_speech(
    file: InputFile,
    threshold: Annotated[float, typer.Option(help="Probability that counts as speech, 0 to 1; 0 means 0.5.")] = 0.0,
    min_speech: Annotated[
        float | None, typer.Option(help="Leave out shorter speech, in seconds up to 10. By default 0.25.")
    ] = None,
    min_silence: Annotated[
        float | None, typer.Option(help="Pass over shorter pauses, in seconds up to 10. By default 0.1.")
    ] = None,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = DETECT_SECONDS,
    as_json: Json = False,
) -> None:
    """Say when somebody speaks in a recording: WAV, FLAC, Ogg, MP3, AIFF.

    \b
    [bold]Example[/bold]
      ortmesh call speech detect-speech talk.wav --min-silence 0.5
    """
    audio = speech_pb2.Audio(encoded=read(file))
    request = speech_pb2.DetectSpeechRequest(model=model, audio=audio, threshold=threshold)
    for field, seconds in (("min_speech", min_speech), ("min_silence", min_silence)):
        if seconds is not None:
            getattr(request, field).FromTimedelta(timedelta(seconds=seconds))
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.speech.DetectSpeech(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    listing = table("FROM", "TO", "SECONDS", "CONFIDENCE", right=["FROM", "TO", "SECONDS", "CONFIDENCE"])
    for interval in answer.intervals:
        start, end = interval.start.ToTimedelta(), interval.end.ToTimedelta()
        length = (end - start).total_seconds()
        listing.add_row(clock(start), clock(end), f"{length:.1f}", f"{interval.confidence:.2f}")
    out.print(listing if answer.intervals else "nobody speaks")


def clock(time: timedelta) -> str:
    """A time in a recording as minutes:seconds.tenths."""
    minutes, seconds = divmod(time.total_seconds(), 60)
    return f"{minutes:.0f}:{seconds:04.1f}"
