"""What a subcommand sends of an audio file, or of standard input, in a stream: chunk by chunk. Stage: command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ortmesh.cli.call.numbers import int32
from ortmesh.cli.options import STDIN
from ortmesh.speech.v1 import speech_pb2

FORMATS = {
    "s16le": (speech_pb2.SAMPLE_FORMAT_S16LE, 2),
    "f32le": (speech_pb2.SAMPLE_FORMAT_F32LE, 4),
    "mulaw": (speech_pb2.SAMPLE_FORMAT_MULAW, 1),
    "alaw": (speech_pb2.SAMPLE_FORMAT_ALAW, 1),
}
"""By the names of options, with the bytes of a sample."""
CHUNK_SECONDS = 0.1
CHUNK_BYTES = 16_384
"""Where it is not known how long a byte lasts."""
MAX_CHUNK_BYTES = 1 << 20
"""Of a message's audio."""
WAV_HEADER = 44

Format = Annotated[
    str, typer.Option("--format", help=f"Of raw samples: {', '.join(FORMATS)}. By default a WAV, FLAC or Ogg file.")
]
Rate = Annotated[int, typer.Option(help="Samples a second, where --format says how they are stored.")]
Channels = Annotated[int, typer.Option(help="Channels, where --format says how samples are stored.")]
Pace = Annotated[bool, typer.Option("--pace", help="Send no quicker than it is spoken: raw samples and WAV files.")]


def stream_format(format: str, rate: int, channels: int) -> speech_pb2.StreamFormat:
    """How the audio comes. BadParameter for a format that is none."""
    if not format:
        return speech_pb2.StreamFormat(container=True)
    if format not in FORMATS:
        raise typer.BadParameter(f"{format!r}: expected {', '.join(FORMATS)}", param_hint="--format")
    number, _ = FORMATS[format]
    raw = speech_pb2.RawFormat(sample_rate_hertz=int32(rate), channels=int32(channels), format=number)
    return speech_pb2.StreamFormat(raw=raw)


def chunks(file: Path, format: speech_pb2.StreamFormat, *, pace: bool) -> Iterator[bytes]:
    """The file's bytes, or standard input's as they come; with `pace` no quicker than they are spoken.

    BadParameter when nothing tells how long they last.
    """
    source: BinaryIO = sys.stdin.buffer if file == STDIN else file.open("rb")
    head = b"" if format.WhichOneof("format") == "raw" else source.read(WAV_HEADER)
    a_second = _bytes_a_second(format, head)
    if pace and not a_second:
        source.close()
        raise typer.BadParameter("only raw samples and WAV files can be sent as they are spoken", param_hint="--pace")
    return _chunks(source, head, a_second, pace=pace)


def _chunks(source: BinaryIO, head: bytes, a_second: int, *, pace: bool) -> Iterator[bytes]:
    size = min(max(int(a_second * CHUNK_SECONDS), 1), MAX_CHUNK_BYTES) if a_second else CHUNK_BYTES
    with source:
        began, sent = time.monotonic(), 0
        chunk = head or _read(source, size)
        while chunk:
            yield chunk
            sent += len(chunk)
            if pace:
                time.sleep(max(began + sent / a_second - time.monotonic(), 0))
            chunk = _read(source, size)


def _read(source: BinaryIO, size: int) -> bytes:
    """What is there, at most so many bytes: a microphone's program writes a little at a time."""
    read1 = getattr(source, "read1", source.read)
    content: bytes = read1(size)
    return content


def _bytes_a_second(format: speech_pb2.StreamFormat, head: bytes) -> int:
    """0 when it is not known."""
    if format.WhichOneof("format") == "raw":
        sizes = dict(FORMATS.values())
        return format.raw.sample_rate_hertz * max(format.raw.channels, 1) * sizes[format.raw.format]
    is_wav = head[:4] == b"RIFF" and head[12:16] == b"fmt "
    return int.from_bytes(head[28:32], "little") if is_wav else 0
