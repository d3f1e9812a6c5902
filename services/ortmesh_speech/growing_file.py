"""GrowingFile: a file that grows at its end while libsndfile reads it, of which only the part in use is held.
Stage: task.

libsndfile, by its Python wrapper, asks for the length and looks for an Ogg stream's last page. Neither is known: the
length is told as endless, and `tell` after a `seek` that leads nowhere is -1, upon which libsndfile goes on without.
"""

from __future__ import annotations

import io
import threading

ENDLESS = 2**62
NOWHERE = -1


class GrowingFile:
    """Bytes are added by one thread and read by another, which waits for them."""

    def __init__(self, turn: threading.Condition) -> None:
        self.hungry = False
        """True while the reader waits for bytes."""
        self.ended = False
        """True when none follow."""
        self.position = 0
        """Bytes read so far."""
        self._turn = turn
        self._content = bytearray()
        self._dropped = 0
        """Bytes before those that are held."""
        self._told = 0
        self._keeps = True

    def append(self, chunk: bytes) -> None:
        """Adds bytes at the end. Under the lock."""
        if chunk:  # no bytes would be the end
            self._content += chunk
            self._feed()

    def end(self) -> None:
        """Nothing follows: the reader finds the end. Under the lock."""
        self.ended = True
        self._feed()

    def clear(self) -> None:
        """Nobody reads any more. Under the lock."""
        self._content.clear()
        self._dropped = self.position

    def keep_no_more(self) -> None:
        """From now on what was read is let go of: it is not sought back any more."""
        self._keeps = False

    def _feed(self) -> None:
        self.hungry = False
        self._turn.notify_all()

    # What libsndfile's wrapper calls

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> None:
        """Goes to a place that is held; any other leads nowhere, and the reader stays where it is."""
        if whence == io.SEEK_END:
            self._told = ENDLESS + offset
            return
        target = offset + (self.position if whence == io.SEEK_CUR else 0)
        if self._dropped <= target <= self._dropped + len(self._content):
            self.position = self._told = target
        else:
            self._told = NOWHERE

    def tell(self) -> int:
        """Where the last seek or read led to."""
        return self._told

    def readinto(self, buffer: memoryview) -> int:
        """At least one byte, unless the end is reached."""
        with self._turn:
            if not self._held and not self.ended:
                self.hungry = True
                self._turn.notify_all()
                self._turn.wait_for(lambda: not self.hungry)
            count = min(len(buffer), self._held)
            begin = self.position - self._dropped
            buffer[:count] = self._content[begin : begin + count]
            self.position = self._told = self.position + count
            if not self._keeps:
                del self._content[: begin + count]
                self._dropped = self.position
        return count

    def read(self, size: int) -> bytes:
        """The same as bytes."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def write(self, content: bytes) -> int:
        """Refused: soundfile wants to see the method, for files that it reads too."""
        raise io.UnsupportedOperation("only read")

    @property
    def _held(self) -> int:
        return self._dropped + len(self._content) - self.position
