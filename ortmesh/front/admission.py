"""Admission: permits for calls, their bytes and streams, taken before a request is parsed. Stage: front."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ortmesh.errors import Draining, OrtmeshError, Overloaded

SHORTEST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 10.0
SMOOTHING = 0.05
"""Weight of the newest call in the running mean of how long calls hold their permits."""


class Admission:
    """Counts what is in flight and refuses what is too much. Thread-safe.

    Unary calls and streams have permits of their own, so that neither starves the other; bytes are counted together.
    """

    __slots__ = (
        "_held_seconds",
        "_lock",
        "_on_idle",
        "bytes",
        "calls",
        "max_bytes",
        "max_calls",
        "max_streams",
        "stream_bytes",
        "streams",
    )

    def __init__(self, max_calls: int, max_bytes: int, max_streams: int) -> None:
        self.max_calls = max_calls
        self.max_bytes = max_bytes
        self.max_streams = max_streams
        self.calls = 0
        """Unary calls in flight."""
        self.bytes = 0
        """Bytes of the requests in flight."""
        self.stream_bytes = 0
        """Those among them that came in streams: messages that their handlers have at the moment."""
        self.streams = 0
        """Streams in flight."""
        self._held_seconds = SHORTEST_RETRY_SECONDS
        self._on_idle: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def enter(self, nbytes: int) -> None:
        """Takes a permit for a unary call whose request has so many bytes. Overloaded or Draining without one."""
        with self._lock:
            if self.calls < self.max_calls and self.bytes + nbytes <= self.max_bytes:
                self.calls += 1
                self.bytes += nbytes
                return
            what = "calls" if self.calls >= self.max_calls else "bytes of requests"
        raise self._refusal(what)

    def enter_stream(self, nbytes: int) -> None:
        """Takes a permit for a stream. Overloaded or Draining without one."""
        with self._lock:
            if self.streams < self.max_streams and self.bytes + nbytes <= self.max_bytes:
                self.streams += 1
                self.bytes += nbytes
                return
            what = "streams" if self.streams >= self.max_streams else "bytes of requests"
        raise self._refusal(what)

    def leave(self, nbytes: int, held_seconds: float) -> None:
        """Gives a unary call's permit back; how long it was held tells the refused when to come again."""
        with self._lock:
            self.calls -= 1
            self.bytes -= nbytes
            self._held_seconds += SMOOTHING * (held_seconds - self._held_seconds)
            on_idle = self._on_idle
        if on_idle is not None:
            self._tell_if_idle(on_idle)

    def leave_stream(self, nbytes: int, held_seconds: float) -> None:
        """Gives a stream's permit back. How long streams last tells nothing about when one ends."""
        with self._lock:
            self.streams -= 1
            self.bytes -= nbytes
            on_idle = self._on_idle
        if on_idle is not None:
            self._tell_if_idle(on_idle)

    def hold(self, nbytes: int) -> None:
        """Counts a message of a stream. Unary calls are refused for it, a stream that goes on is not refused for them:
        Overloaded only when all streams' messages together are over the bound."""
        with self._lock:
            if self.stream_bytes + nbytes <= self.max_bytes:
                self.stream_bytes += nbytes
                self.bytes += nbytes
                return
        raise self._refusal("bytes of streams")

    def release(self, nbytes: int) -> None:
        """A message that was counted is done with."""
        if nbytes:
            with self._lock:
                self.stream_bytes -= nbytes
                self.bytes -= nbytes

    def close(self, on_idle: Callable[[], None]) -> None:
        """Gives no more permits; calls `on_idle` (from any thread, perhaps more than once) when all came back."""
        with self._lock:
            self._on_idle = on_idle
            # No permit at all is the same test as too many: an open front pays nothing for being closable.
            self.max_calls = self.max_streams = 0
        self._tell_if_idle(on_idle)

    def in_flight(self) -> int:
        """Calls and streams that hold permits."""
        with self._lock:
            return self.calls + self.streams

    def _tell_if_idle(self, on_idle: Callable[[], None]) -> None:
        if self.in_flight() == 0:
            on_idle()

    def _refusal(self, what: str) -> OrtmeshError:
        if self._on_idle is not None:
            return Draining("the service is shutting down")
        # A permit was held this long on average: about then as many come free as are in flight now.
        retry = min(max(self._held_seconds, SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS)
        return Overloaded(f"too many {what} in flight", retry_after_seconds=retry, metadata={"bound": what})
