"""Supervisor: child processes that are started, kept alive and ended in order. Stage: command line.

A part that dies is started again after a delay that doubles with each death, and the reason is shown. Children end
with this process, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import ortmesh
from ortmesh.lines import lines_of

LAUNCH = Path(ortmesh.__file__).with_name("launch.py")
LAST_WORDS_SECONDS = 1.0
"""How long the output of a dead process is read: a grandchild may still hold the pipe."""

Show = Callable[[str, str], None]
"""`show(part's name, line)`: what a part wrote, or what happened to it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One child process: its name, its command with the program's full path, and what is added to the environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds before a dead part is started again."""

    first: float = 0.5
    longest: float = 30.0
    healthy: float = 30.0
    """After so long alive, a death counts as the first one again."""


class Supervisor:
    """Lives on one event loop: `start` parts, `stop` them in the order you like."""

    def __init__(
        self,
        show: Show,
        *,
        on_death: Callable[[str, int, str], None] = lambda name, deaths, reason: None,
        delays: Delays | None = None,
    ) -> None:
        """`on_death(name, deaths in a row, reason)` is called before the delay."""
        self._show = show
        self._on_death = on_death
        self._delays = delays or Delays()
        self._children: dict[str, _Child] = {}

    async def start(self, part: Part) -> None:
        """Starts a part and keeps it alive. OSError when its program is not there."""
        child = _Child(part, self._show)
        await child.spawn()
        self._children[part.name] = child
        child.keeper = asyncio.create_task(self._keep(child), name=f"keep-{part.name}")

    async def stop(
        self, names: Iterable[str], grace_seconds: float, signals: Sequence[signal.Signals] = (signal.SIGTERM,)
    ) -> None:
        """Ends the named parts side by side with the signals, and after the grace with SIGKILL."""
        await asyncio.gather(*(self._stop(name, grace_seconds, signals) for name in names if name in self._children))

    async def kill(self) -> None:
        """Ends everything at once."""
        await self.stop(list(self._children), 0.0)

    def pid(self, name: str) -> int | None:
        """Of a part that runs; None between two lives."""
        child = self._children.get(name)
        return child.process.pid if child and child.process and child.process.returncode is None else None

    async def _keep(self, child: _Child) -> None:
        delay, deaths = self._delays.first, 0
        reason, lived = await child.end()
        while not child.stopping.is_set():
            if lived >= self._delays.healthy:
                delay, deaths = self._delays.first, 0
            deaths += 1
            self._show(child.part.name, f"{reason}; starts again in {delay:g} s")
            self._on_death(child.part.name, deaths, reason)
            with suppress(TimeoutError):
                await asyncio.wait_for(child.stopping.wait(), delay)
                return
            delay = min(2 * delay, self._delays.longest)
            reason, lived = await child.live()

    async def _stop(self, name: str, grace_seconds: float, signals: Sequence[signal.Signals]) -> None:
        child = self._children[name]
        child.stopping.set()
        assert child.keeper is not None
        if grace_seconds > 0:
            for number in signals:
                child.signal(number)
            await asyncio.wait([child.keeper], timeout=grace_seconds)
        if not child.keeper.done():
            if grace_seconds > 0:
                self._show(name, f"did not end within {grace_seconds:g} s and is killed")
            child.signal(signal.SIGKILL)
        await child.keeper
        self._children.pop(name, None)


class _Child:
    """One part and the process that it now is."""

    def __init__(self, part: Part, show: Show) -> None:
        self.part = part
        self.process: asyncio.subprocess.Process | None = None
        self.keeper: asyncio.Task[None] | None = None
        self.stopping = asyncio.Event()
        self._show = show
        self._began = 0.0
        self._last_line = ""
        self._reader: asyncio.Task[None] | None = None

    async def spawn(self) -> None:
        """Starts the process in a group of its own, so that a terminal's Ctrl-C reaches the supervisor alone."""
        # A pipe of ours: asyncio's own holds back `wait` until every grandchild has closed it.
        inside, outside = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), *self.part.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=outside,
                stderr=outside,
                env={**os.environ, **self.part.environment},
                process_group=0,
            )
        except BaseException:
            os.close(inside)
            raise
        finally:
            os.close(outside)
        self._began, self._last_line = time.monotonic(), ""
        self._reader = asyncio.create_task(self._read(inside), name=f"read-{self.part.name}")

    async def live(self) -> tuple[str, float]:
        """Another life, from start to end: what `end` returns. A start that fails is a death at once."""
        try:
            await self.spawn()
        except OSError as error:
            return f"could not be started: {error}", 0.0
        if self.stopping.is_set():  # it was told to end while there was no process to tell
            self.signal(signal.SIGTERM)
        return await self.end()

    async def end(self) -> tuple[str, float]:
        """Waits for the process's end; returns the reason in words and how many seconds it lived."""
        assert self.process is not None
        assert self._reader is not None
        code = await self.process.wait()
        lived = time.monotonic() - self._began
        with suppress(TimeoutError):
            await asyncio.wait_for(self._reader, LAST_WORDS_SECONDS)
        return reason(code, self._last_line), lived

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; SIGKILL to the whole group, so that no grandchild stays."""
        if self.process is None or self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)

    async def _read(self, pipe: int) -> None:
        async for line in _lines(pipe):
            if line.strip():
                self._last_line = line.strip()
            self._show(self.part.name, line)


async def _lines(pipe: int) -> AsyncIterator[str]:
    """The lines that are written into a pipe, without their ends; closes it."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb"))
    try:
        async for line in lines_of(reader):
            yield line
    finally:
        transport.close()


def reason(code: int, last_line: str) -> str:
    """Why a process ended, in words: `exited with code 1: <its last line>`, `was ended by SIGKILL`.

    What it said last before a signal ended it is not the reason.
    """
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"exited with code {code}: {last_line}" if last_line else f"exited with code {code}"
