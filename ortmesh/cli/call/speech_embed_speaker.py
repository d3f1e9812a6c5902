"""`ortmesh call speech embed-speaker`: whether two recordings are of one voice. Stage: command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from rich.markup import escape

from ortmesh.cli.answers import print_beginning, print_json_line, print_model, table
from ortmesh.cli.console import err, out
from ortmesh.cli.cosines import cosine_table, short
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, Address, InputFiles, Json, Model, Timeout, read
from ortmesh.client import Client
from ortmesh.speech.v1 import speech_pb2

SECONDS = 120.0
SHORT_SECONDS = 1.5
"""Less speech than that tells little."""


def embed_speaker(
    files: InputFiles,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> None:
    """Turn voices into vectors and show how alike they are, as cosines: WAV, FLAC, Ogg, MP3, AIFF.

    Of one voice they are above 0.8, mostly. With --json, the answers one after another, each on a line.

    \b
    [bold]Examples[/bold]
      ortmesh call speech embed-speaker known.wav caller.wav
      ortmesh call speech embed-speaker *.flac
    """
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answers = list(_ask(mesh, files, model))
    if as_json:
        for answer in answers:
            print_json_line(answer)
        return
    print_model(answers[0].model)
    listing = table("FILE", "SPEECH", right=["SPEECH"])
    for file, answer in zip(files, answers, strict=True):
        seconds = answer.speech.ToTimedelta().total_seconds()
        listing.add_row(short(file.name), f"{seconds:.1f} s{' (little)' if seconds < SHORT_SECONDS else ''}")
    out.print(listing)
    if len(answers) == 1:
        print_beginning(answers[0].embedding)
    else:
        out.print(cosine_table([file.name for file in files], [answer.embedding.values for answer in answers]))


def _ask(mesh: Client, files: Sequence[Path], model: str) -> Iterator[speech_pb2.EmbedSpeakerResponse]:
    """Each file's answer; of several files the one that can't be answered is named before its error."""
    for file in files:
        audio = speech_pb2.Audio(encoded=read(file))
        try:
            yield mesh.speech.EmbedSpeaker(speech_pb2.EmbedSpeakerRequest(model=model, audio=audio))
        except grpc.RpcError:
            if len(files) > 1:
                err.print(f"{escape(str(file))}:", soft_wrap=True)
            raise
