"""`ortmesh call speech synthesize`: a text spoken into a file or a pipe. Stage: command line."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer
from rich.markup import escape

from ortmesh.cli.call.numbers import int64
from ortmesh.cli.console import err, fail, out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, STDIN, Address, Json, Model, Timeout, read
from ortmesh.client import Client
from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.speech.v1 import speech_pb2

SECONDS = 43_200.0
"""A long text is spoken for hours where the output is played as it comes."""
STDOUT = Path("-")
SAMPLE_BYTES = 2
WAV_HEADER_BYTES = 44
OPUS_RATE = 48_000
"""In which an Ogg page tells its place, whatever the rate of what was spoken."""


class Format(StrEnum):
    """In which form the audio is written."""

    WAV = "wav"
    RAW = "raw"
    OGG = "ogg"


FORMATS: Final = {
    Format.WAV: speech_pb2.AUDIO_FORMAT_WAV,
    Format.RAW: speech_pb2.AUDIO_FORMAT_S16LE,
    Format.OGG: speech_pb2.AUDIO_FORMAT_OGG_OPUS,
}
ENDINGS: Final = {".raw": Format.RAW, ".pcm": Format.RAW, ".ogg": Format.OGG, ".opus": Format.OGG}


def synthesize(
    text: Annotated[str, typer.Argument(help="What is spoken, in English.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="A file with the text, or - for standard input.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the audio goes, - for standard output.", show_default="speech.wav"),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="wav, raw (signed 16 bits) or ogg (Opus).", show_default="as the output is called"
        ),
    ] = None,
    speed: Annotated[float, typer.Option(help="How fast, 0.5 to 2.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed speaks in the same way; 0: the model's own.")] = 0,
    voice: Annotated[str, typer.Option(help="One of the model's voices.", show_default="the model's own")] = "",
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> None:
    """Speak a text: into speech.wav, another file, or a pipe.

    \b
    [bold]Examples[/bold]
      ortmesh call speech synthesize "The train leaves at 14:05." --output train.wav
      ortmesh call speech synthesize --file story.txt --format ogg --output story.ogg
      ortmesh call speech synthesize "Good morning." --format raw --output - | aplay -f S16_LE -r 24000
    """
    chosen = form or (ENDINGS.get(output.suffix.lower()) if output else None) or Format.WAV
    place = output or Path(f"speech.{chosen}")
    request = speech_pb2.SynthesizeRequest(
        model=model,
        text=_text(text, file),
        speed=speed,
        seed=int64(seed, "--seed"),
        voice=voice,
        format=FORMATS[chosen],
    )
    written = _Written(chosen)
    with call_errors_in_words(address, as_json=as_json), Client(address) as mesh, _opened(place) as sink:
        written.take(mesh.speech.Synthesize(request, timeout=timeout), sink)
        if chosen is Format.WAV and _is_file(place):
            written.complete(sink)
    _tell(written, place, as_json=as_json)


class _Written:
    """What was written so far."""

    def __init__(self, form: Format) -> None:
        self.model = ModelVersion()
        self.rate = 0
        self.bytes = 0
        self._form = form
        self._end = b""

    def take(self, answers: Iterable[speech_pb2.SynthesizeResponse], sink: BinaryIO) -> None:
        """Writes all answers as they come."""
        for answer in answers:
            if answer.HasField("model"):
                self.model, self.rate = answer.model, answer.sample_rate_hertz
            sink.write(answer.audio)
            sink.flush()
            self.bytes += len(answer.audio)
            self._end = (self._end + answer.audio)[-1 << 16 :]

    def complete(self, sink: BinaryIO) -> None:
        """Writes into a WAV file's header how long it has become."""
        for at, size in ((4, self.bytes - 8), (40, self.bytes - WAV_HEADER_BYTES)):
            sink.seek(at)
            sink.write(struct.pack("<I", size))

    @property
    def seconds(self) -> float:
        """How long the audio is."""
        if self._form is Format.OGG:
            page = self._end.rfind(b"OggS")
            return float(struct.unpack_from("<q", self._end, page + 6)[0] / OPUS_RATE)
        header = WAV_HEADER_BYTES if self._form is Format.WAV else 0
        return (self.bytes - header) / SAMPLE_BYTES / self.rate


def _text(text: str, file: Path | None) -> str:
    if bool(text) == (file is not None):
        raise typer.BadParameter("give either a text or --file")
    if file is None:
        return text
    if file != STDIN and not file.is_file():
        raise typer.BadParameter(f"{file} is no file")
    try:
        return read(file).decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file} is no text in UTF-8: {error.reason} at byte {error.start}") from None


@contextmanager
def _opened(place: Path) -> Iterator[BinaryIO]:
    """The place, open for writing. A file is there once it is whole: what fails in the middle leaves none."""
    if place == STDOUT:
        yield sys.stdout.buffer
        return
    try:
        with _file(place.resolve()) if _is_file(place) else place.open("wb") as sink:
            yield sink
    except OSError as error:
        fail(f"{place} can't be written: {error.strerror}")


def _is_file(place: Path) -> bool:
    """False for a device or a pipe, which must not be replaced by a file, and of which nothing can be written again."""
    return place != STDOUT and (place.is_file() or not place.exists())


@contextmanager
def _file(place: Path) -> Iterator[BinaryIO]:
    part = place.with_name(f"{place.name}.part")
    try:
        with part.open("wb") as sink:
            yield sink
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def _tell(written: _Written, place: Path, *, as_json: bool) -> None:
    """On standard error where standard output has the audio."""
    console = err if place == STDOUT else out
    if as_json:
        model = {"name": written.model.name, "version": written.model.version}
        told = {"model": model, "file": str(place), "bytes": written.bytes, "seconds": round(written.seconds, 3)}
        console.print(json.dumps(told), soft_wrap=True, markup=False)
        return
    console.print(f"{written.model.name}@{written.model.version}", style="dim")
    where = "standard output" if place == STDOUT else escape(str(place))
    console.print(f"{where}: {written.seconds:.1f} s, {written.rate:,} samples a second, {written.bytes:,} bytes")
