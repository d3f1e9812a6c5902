"""`ortmesh call speech stream-detect-speech`: when somebody speaks, while it is spoken. Stage: command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from ortmesh.cli.answers import print_json_line, print_model
from ortmesh.cli.call.numbers import duration
from ortmesh.cli.call.speech_stream import Channels, Format, Pace, Rate, chunks, stream_format
from ortmesh.cli.clock import clock
from ortmesh.cli.console import out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, Address, InputFile, Json, Model, Timeout
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2

SECONDS = 43_200.0

Request = speech_pb2.StreamingDetectSpeechRequest


def stream_detect_speech(
    file: InputFile,
    format: Format = "",
    rate: Rate = 16_000,
    channels: Channels = 1,
    pace: Pace = False,
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
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> None:
    """Say when somebody speaks, while it is spoken: a WAV, FLAC or Ogg file, raw samples, or either from a pipe.

    \b
    [bold]Examples[/bold]
      ortmesh call speech stream-detect-speech talk.wav --pace
      arecord -f S16_LE -r 16000 | ortmesh call speech stream-detect-speech -
    """
    config = speech_pb2.StreamingDetectSpeechConfig(
        model=model, format=stream_format(format, rate, channels), threshold=threshold
    )
    for field, seconds in (("min_speech", min_speech), ("min_silence", min_silence)):
        if seconds is not None:
            getattr(config, field).CopyFrom(duration(seconds, f"--{field.replace('_', '-')}"))

    audio = chunks(file, config.format, pace=pace)

    def requests() -> Iterator[Request]:
        yield Request(config=config)
        yield from (Request(audio=chunk) for chunk in audio)

    with call_errors_in_words(address, as_json=as_json), Client(address) as mesh:
        for answer in mesh.speech.StreamingDetectSpeech(requests(), timeout=timeout):
            print_json_line(answer) if as_json else _print(answer)


def _print(answer: speech_pb2.StreamingDetectSpeechResponse) -> None:
    match answer.WhichOneof("response"):
        case "model":
            print_model(answer.model)
        case "started":
            out.print(f"{clock(answer.started.ToTimedelta())}  somebody speaks", highlight=False)
        case "interval":
            found = answer.interval
            start, end = clock(found.start.ToTimedelta()), clock(found.end.ToTimedelta())
            out.print(f"{end}  somebody has spoken from {start}, confidence {found.confidence:.2f}", highlight=False)
        case "duration":
            out.print(f"{clock(answer.duration.ToTimedelta())}  the end", highlight=False)
