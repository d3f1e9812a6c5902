"""`ortmesh call speech stream-recognize`: what is said, while it is said. Stage: command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from ortmesh.cli.answers import print_json_line, print_model
from ortmesh.cli.call.numbers import duration, int32
from ortmesh.cli.call.speech_options import Alternatives, Beam, Boost, Language, Phrases, Prompt, recognition_options
from ortmesh.cli.call.speech_stream import Channels, Format, Pace, Rate, chunks, stream_format
from ortmesh.cli.clock import clock
from ortmesh.cli.console import out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, Address, InputFile, Json, Model, Timeout
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2

SECONDS = 43_200.0

Request = speech_pb2.StreamingRecognizeRequest
Response = speech_pb2.StreamingRecognizeResponse


def stream_recognize(
    file: InputFile,
    format: Format = "",
    rate: Rate = 16_000,
    channels: Channels = 1,
    pace: Pace = False,
    interim: Annotated[bool, typer.Option(help="Show what is said before it has ended.")] = True,
    words: Annotated[bool, typer.Option("--words", help="With each word's time and confidence.")] = False,
    language: Language = "",
    phrase: Phrases = None,
    boost: Boost = 0.0,
    prompt: Prompt = "",
    alternatives: Alternatives = 0,
    beam: Beam = 0,
    end_silence: Annotated[
        float | None, typer.Option(help="So long a silence ends what was said, in seconds, 0.1 to 5. By default 0.5.")
    ] = None,
    model: Model = "",
    interim_model: Annotated[
        str, typer.Option(help="NAME or NAME@VERSION, for what is said so far.", show_default="the task's")
    ] = "",
    address: Address = ADDRESS,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> None:
    """Write down what is said, while it is said: a WAV, FLAC or Ogg file, raw samples, or either from a pipe.

    \b
    [bold]Examples[/bold]
      ortmesh call speech stream-recognize talk.wav --pace
      arecord -f S16_LE -r 16000 | ortmesh call speech stream-recognize -
    """
    config = speech_pb2.StreamingRecognizeConfig(
        model=model,
        format=stream_format(format, rate, channels),
        beam_width=int32(beam),
        interim_results=interim,
        options=recognition_options(
            language=language, words=words, alternatives=alternatives, phrases=phrase, boost=boost, prompt=prompt
        ),
        interim_model=interim_model,
    )
    if end_silence is not None:
        config.end_silence.CopyFrom(duration(end_silence, "--end-silence"))

    audio = chunks(file, config.format, pace=pace)

    def requests() -> Iterator[Request]:
        yield Request(config=config)
        yield from (Request(audio=chunk) for chunk in audio)

    with call_errors_in_words(address, as_json=as_json), Client(address) as mesh:
        answers = mesh.speech.StreamingRecognize(requests(), timeout=timeout)
        if as_json:
            for answer in answers:
                print_json_line(answer)
        else:
            _show(answers)


def _show(answers: Iterator[Response]) -> None:
    """Results as lines; below them, where somebody watches, what is said so far, in place."""
    with Live(console=out, auto_refresh=False, transient=True) as live:
        for answer in answers:
            match answer.WhichOneof("response"):
                case "models":
                    print_model(answer.models.model)
                case "interim" if out.is_terminal:
                    live.update(_so_far(answer.interim), refresh=True)
                case "result":
                    live.update("", refresh=out.is_terminal)
                    _print(answer.result)
                case "duration":
                    out.print(f"{clock(answer.duration.ToTimedelta())}  the end", style="dim", highlight=False)


def _so_far(interim: speech_pb2.InterimResult) -> Text:
    """What stays is bright, what may change is faint."""
    start = clock(interim.start.ToTimedelta())
    return Text.assemble(f"{start}  ", interim.stable, (interim.transcript[len(interim.stable) :], "dim"))


def _print(result: speech_pb2.Segment) -> None:
    """A line; below it, faint, other transcripts and the words, as far as they were asked for."""
    if not result.transcript:
        return
    start = clock(result.start.ToTimedelta())
    out.print(Text(f"{start}  {result.transcript}"), soft_wrap=True)
    for other in result.alternatives:
        out.print(Text(f"{' ' * len(start)}  or: {other.transcript}", "dim"), soft_wrap=True)
    for word in result.words:
        out.print(Text(f"{clock(word.start.ToTimedelta())}  {word.confidence:.2f}  {word.text}", "dim"), soft_wrap=True)
