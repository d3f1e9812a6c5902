"""`ortmesh call speech`: tasks on speech. Stage: command line."""

from __future__ import annotations

from typing import Annotated

import typer

from ortmesh.cli.answers import print_json, print_model, table
from ortmesh.cli.call.numbers import duration
from ortmesh.cli.call.speech_embed_speaker import embed_speaker
from ortmesh.cli.call.speech_identify_language import identify_language
from ortmesh.cli.call.speech_recognize import recognize
from ortmesh.cli.call.speech_stream_detect import stream_detect_speech
from ortmesh.cli.call.speech_stream_recognize import stream_recognize
from ortmesh.cli.call.speech_synthesize import synthesize
from ortmesh.cli.clock import clock
from ortmesh.cli.console import out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, Address, InputFile, Json, Model, Timeout, read
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2

DETECT_SECONDS = 300.0

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Tasks on speech.")
app.command()(recognize)
app.command("embed-speaker")(embed_speaker)
app.command("identify-language")(identify_language)
app.command("stream-detect-speech")(stream_detect_speech)
app.command("stream-recognize")(stream_recognize)
app.command()(synthesize)


@app.callback()
def speech() -> None:
    """Tasks on speech."""


@app.command("detect-speech")
def detect_speech(
    file: InputFile,
    threshold: Annotated[
        float, typer.Option(help="Probability that counts as speech, up to 1.", show_default="0.5")
    ] = 0.0,
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
            getattr(request, field).CopyFrom(duration(seconds, f"--{field.replace('_', '-')}"))
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
