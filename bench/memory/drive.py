"""Two callers who ask one request after the other, for as long as the run takes."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc

from bench.memory.asks import ask
from ortmesh.client import channel_options

CALL_SECONDS = 120.0
CALLERS = 2
SHOWN = 3
"""Of the failures of a run so many are told."""


class Callers:
    """Asks until it is told to stop; `with` it."""

    def __init__(self, address: str) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self._channel = grpc.insecure_channel(address, channel_options())
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._busy = 0
        self._ended = threading.Event()
        self._asking = threading.Event()
        self._asking.set()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(CALLERS)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()

    def wait(self, seconds: float) -> None:
        """Returns after so many seconds, or with an error as soon as calls fail one after the other."""
        self._ended.wait(seconds)
        if len(self.failed) > SHOWN * len(self.answered) + SHOWN:
            raise RuntimeError("; ".join(self.failed[-SHOWN:]))

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Nothing new is asked meanwhile; begins when all is answered."""
        self._asking.clear()
        while self._busy:
            time.sleep(0.01)
        try:
            yield
        finally:
            self._asking.set()

    def _ask_on(self) -> None:
        while self._asking.wait() and not self._ended.is_set():
            with self._lock:
                number, self._busy = next(self._numbers), self._busy + 1
            try:
                self._call(number)
            finally:
                with self._lock:
                    self._busy -= 1

    def _call(self, number: int) -> None:
        asked = ask(number)
        method: Any = self._channel.unary_unary(asked.path, request_serializer=type(asked.request).SerializeToString)
        try:
            method(asked.request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            with self._lock:
                self.failed.append(f"request {number}, {asked.path}: {error.code().name}: {error.details()}")
            time.sleep(0.1)
        else:
            with self._lock:
                self.answered[asked.path.rpartition("/")[2]] += 1
