"""Processes: contestants that read and write lines of JSON."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.attack.processes import CHECKOUT
from bench.generate.jobs import Job
from bench.generate.texts import Wave
from bench.generate.times import Sums

BARE = "bare engine"


class Contestant(Protocol):
    """Who writes texts."""

    name: str

    def write(self, jobs: Sequence[Job], streams: int) -> Wave:
        """The texts of all jobs, so many at once, and beside them those that come by themselves."""


class Process:
    """A process that answers each line with one."""

    def __init__(self, name: str, process: subprocess.Popen[str], stops: Sequence[int]) -> None:
        self.name = name
        self._process = process
        self._stops = list(stops)
        self._answer()

    def write(self, jobs: Sequence[Job], streams: int) -> Wave:
        """The texts of all jobs."""
        return Wave.of(jobs, self.ask(jobs=[job.line() for job in jobs], streams=streams, stops=self._stops))

    def ask(self, **line: Any) -> Any:
        """One line and its answer. RuntimeError when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}; its words are above")
        return json.loads(line)


class BareEngine(Process):
    """The engine without a service."""

    def forget(self) -> None:
        """Nothing is kept of ended texts."""
        self.ask(forget=True)

    def sums(self) -> Sums:
        """What its parts took since the start."""
        return {part: (calls, seconds) for part, (calls, seconds) in self.ask(sums=True).items()}

    def step_seconds(self, rows: int, length: int) -> float:
        """Of one run for so many texts of so many tokens."""
        return float(self.ask(step=[rows, length]))


@contextlib.contextmanager
def bare_engine(model: Path, threads: int, stops: Sequence[int], name: str = BARE) -> Iterator[BareEngine]:
    """The engine of a model's folder, ready."""
    command = [sys.executable, "-m", "bench.generate.bare", str(model), str(threads)]
    with started(command) as process:
        yield BareEngine(name, process, stops)


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process, ended with the context."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        try:
            yield process
        finally:
            process.kill()
