"""Contestants: whoever writes down what is said in files, and what that took."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ortmesh.client import Client
from ortmesh.speech.v1.speech_pb2 import Audio, RecognizeRequest

TIMEOUT_SECONDS = 600
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Heard:
    """One file's text."""

    text: str
    seconds: float
    """From the question to the whole answer."""


class Contestant(Protocol):
    """A process that is asked for texts."""

    @property
    def name(self) -> str:
        """As the tables call it."""

    @property
    def pid(self) -> int:
        """The process that computes."""

    def hear(self, paths: Sequence[str]) -> list[Heard]:
        """The texts of these files, in their order."""


class Ours:
    """The running service, asked over gRPC for one file by each of so many callers at a time."""

    def __init__(self, client: Client, pid: int, callers: int = 1) -> None:
        self.name = f"ortmesh, {callers} callers" if callers > 1 else "ortmesh, one caller"
        self.pid = pid
        self._client = client
        self._callers = callers

    def hear(self, paths: Sequence[str]) -> list[Heard]:
        """The texts of these files, in their order."""
        with ThreadPoolExecutor(self._callers) as pool:
            return list(pool.map(self._hear, paths))

    def _hear(self, path: str) -> Heard:
        began = time.perf_counter()
        request = RecognizeRequest(audio=Audio(encoded=Path(path).read_bytes()))
        answer = self._client.speech.Recognize(request, timeout=TIMEOUT_SECONDS)
        return Heard(answer.transcript, time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Measured:
    """Some files heard by one contestant."""

    heard: Sequence[Heard]
    seconds: float
    cpu_seconds: float
    """Of its process alone, which did nothing else."""


def measure(contestant: Contestant, paths: Sequence[str]) -> Measured:
    """Has it hear these files."""
    before, began = cpu_seconds(contestant.pid), time.perf_counter()
    heard = contestant.hear(paths)
    return Measured(heard, time.perf_counter() - began, cpu_seconds(contestant.pid) - before)


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
