"""Decoder: FLAC and Ogg as they are written, by libsndfile, which reads a file that blocks. Stage: task.

It reads in a thread of its own, one a stream. Thread and caller take turns: the caller waits while the thread decodes,
the thread waits for bytes, or until what it made was taken. Whatever becomes of the stream, `close` ends both waits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import soundfile

from ortmesh.errors import BadInput
from ortmesh_speech.audio import check_shape
from ortmesh_speech.growing_file import GrowingFile
from ortmesh_speech.sample_formats import Samples

THREAD = "ortmesh-decoder"
"""The name of a decoder's thread."""
MAGICS = (b"fLaC", b"OggS")
"""How the files begin."""
FORMATS = ("FLAC", "OGG")
MAX_HEADER_BYTES = 16 << 20
"""Before the samples: tags hold pictures, and all of it is held until the file is open."""
BLOCK_SECONDS = 2
READS_A_SECOND = 50
"""libsndfile keeps back what does not fill a read: so much later would speech be heard."""


class Decoder:
    """One file's way to samples. Fed from one thread at a time."""

    def __init__(self, field: str, max_channels: int) -> None:
        self.rate = 0
        self._field = field
        self._max_channels = max_channels
        self._turn = threading.Condition()
        self._file = GrowingFile(self._turn)
        self._made: list[Samples] = []
        self._frames = 0
        """Of what was made and not taken."""
        self._done = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._decode, name=THREAD, daemon=True)
        self._thread.start()

    def feed(self, chunk: bytes) -> Iterator[Samples]:
        """Blocks [frames, channels] of about 2 s at most. BadInput, with the byte, where the decoder gave up."""
        with self._turn:
            if not self._done:
                self._file.append(chunk)
        if self.rate == 0 and self._file.position > MAX_HEADER_BYTES:
            self.close()
            raise BadInput(self._field, f"has no samples in its first {MAX_HEADER_BYTES >> 20} MiB")
        yield from self._taken()

    def rest(self) -> Iterator[Samples]:
        """What was kept back. BadInput for what ends within its header."""
        with self._turn:
            self._file.end()
        yield from self._taken()

    def close(self) -> None:
        """Ends the thread: for the decoder, the file is over."""
        with self._turn:
            self._done = True
            self._file.clear()
            self._file.end()

    def _taken(self) -> Iterator[Samples]:
        """What the thread makes, until it waits for more bytes or has ended."""
        more = True
        while more:
            with self._turn:
                self._turn.wait_for(lambda: self._full or self._file.hungry or self._done)
                made, self._made, self._frames = self._made, [], 0
                more = not (self._file.hungry or self._done)
                self._turn.notify_all()
            if made:
                yield np.concatenate(made)
        if self._error is not None:
            raise self._error

    @property
    def _full(self) -> bool:
        return 0 < self.rate * BLOCK_SECONDS <= self._frames

    # In the thread

    def _decode(self) -> None:
        try:
            self._read_on(self._opened())
        except BaseException as error:  # told to whoever feeds it
            self._error = error
        with self._turn:
            self._done = True
            self._file.clear()
            self._turn.notify_all()

    def _opened(self) -> soundfile.SoundFile:
        try:
            opened = _Forward(self._file)
        except soundfile.LibsndfileError:
            place = f"has a header that can't be read, up to byte {self._file.position}"
            raise BadInput(self._field, f"{place}: expected FLAC or Ogg (Vorbis or Opus)") from None
        if opened.format not in FORMATS:
            raise BadInput(self._field, f"is {opened.format_info}: expected FLAC or Ogg (Vorbis or Opus)")
        check_shape(opened.samplerate, opened.channels, self._field, self._field, max_channels=self._max_channels)
        self._file.keep_no_more()
        self.rate = opened.samplerate
        return opened

    def _read_on(self, opened: soundfile.SoundFile) -> None:
        frames = max(self.rate // READS_A_SECOND, 1)
        while len(block := self._read(opened, frames)):
            with self._turn:
                self._made.append(block)
                self._frames += len(block)
                if self._full:
                    self._turn.notify_all()
                    self._turn.wait_for(lambda: not self._full or self._done)
                if self._done:
                    return

    def _read(self, opened: soundfile.SoundFile, frames: int) -> Samples:
        try:
            block: Samples = opened.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            place = f"is damaged before byte {self._file.position}"
            raise BadInput(self._field, f"{place}: {error.error_string}") from None
        return block


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # the library has no types
    """A file that is only read forward: soundfile would seek after each read."""

    _sf_error_lock = nullcontext()
    """soundfile opens one file of the process at a time, lest the text of an error be another file's. To open this one
    takes as long as its caller likes: no other may wait for that, and nobody is told the text."""

    def seekable(self) -> bool:
        return False
