"""`ortmesh call speech identify-language`: which language is spoken. Stage: command line."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ortmesh.cli.answers import bar, print_json, print_model, table
from ortmesh.cli.call.numbers import int32
from ortmesh.cli.console import out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, Address, InputFile, Json, Model, Timeout, read
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2

SECONDS = 120.0


def identify_language(
    file: InputFile,
    max_results: Annotated[int, typer.Option("--max", help="How many languages, 1 to 100.", show_default="5")] = 0,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> None:
    """Say which language is spoken in a recording, most probable first: WAV, FLAC, Ogg, MP3, AIFF.

    It takes a model that is not among the default ones: `ortmesh pull whisper-base`.

    \b
    [bold]Example[/bold]
      ortmesh call speech identify-language talk.wav --max 3
    """
    audio = speech_pb2.Audio(encoded=read(file))
    request = speech_pb2.IdentifyLanguageRequest(model=model, audio=audio, max_results=int32(max_results))
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.speech.IdentifyLanguage(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    listing = table("CODE", "CONFIDENCE", "", right=["CONFIDENCE"])
    for language in answer.languages:
        listing.add_row(escape(language.code), f"{language.confidence:.3f}", bar(language.confidence))
    out.print(listing if answer.languages else "nobody speaks")
