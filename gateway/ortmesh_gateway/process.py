"""EnvoyProcess: Envoy as a child that is started, kept alive and ended with grace. Stage: gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import ortmesh
from ortmesh.lines import lines_of
from ortmesh_gateway.admin import Admin, AdminError

log = logging.getLogger(__name__)

START_SECONDS = 20.0
POLL_SECONDS = 0.02
"""Envoy tells nobody when it is ready or has ended its calls: its admin must be asked."""
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 10.0
HEALTHY_SECONDS = 30.0
"""After so long the next death is a new one, and the delay begins anew."""
KILL_SECONDS = 5.0
LAST_LINES, LAST_CHARACTERS = 8, 300
"""What is told of the log when Envoy ends: so many lines, and of each its beginning."""
LEVELS = {"warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}


class EnvoyFailed(RuntimeError):
    """Envoy ended before it served; the text holds what it said."""


class EnvoyProcess:
    """One Envoy. `start`, then `stop` once; between them a death is answered by a new start."""

    def __init__(self, envoy: Path, arguments: Sequence[str], admin: Admin) -> None:
        self._command = [sys.executable, "-I", "-S", str(Path(ortmesh.__file__).with_name("launch.py"))]
        self._program = [str(envoy), *arguments]
        self._admin = admin
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Of the Envoy that runs; None while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What must run as long as Envoy shall."""
        return [self._supervisor] if self._supervisor is not None else []

    async def start(self) -> None:
        """Returns once Envoy serves. EnvoyFailed when it ends before that or takes longer than START_SECONDS."""
        process = await self._spawn()
        try:
            await self._until_ready(process)
        except BaseException:
            await self._end(process)
            raise
        self._supervisor = asyncio.create_task(self._supervise(process), name="envoy-supervisor")

    async def stop(self, drain_seconds: float) -> None:
        """Lets calls in flight end for at most `drain_seconds`, then ends Envoy."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None
        if self._process is not None:
            if self._process.returncode is None:
                await self._drain(drain_seconds)
            await self._end(self._process)

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(*self._command, str(os.getpid()), *self._program),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            process_group=0,  # a terminal's Ctrl-C reaches the gateway alone, which drains first
        )
        self._process = process
        reader = asyncio.create_task(self._read(process), name="envoy-log")
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return process

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        limit = time.monotonic() + START_SECONDS
        while not await self._admin.ready():
            if process.returncode is not None:
                await asyncio.gather(*self._readers)
                raise EnvoyFailed(f"Envoy {_end_of(process.returncode)} before it served: {self._said()}")
            if time.monotonic() > limit:
                raise EnvoyFailed(f"Envoy did not serve within {START_SECONDS:g} s: {self._said()}")
            await asyncio.sleep(POLL_SECONDS)

    async def _supervise(self, process: asyncio.subprocess.Process) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            begin = time.monotonic()
            code = await process.wait()
            if time.monotonic() - begin > HEALTHY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            process, delay = await self._again(_end_of(code), delay)
            try:
                await self._until_ready(process)
                log.info("Envoy is back")
            except EnvoyFailed as error:
                log.debug("%s", error)  # its end is told above

    async def _again(self, why: str, delay: float) -> tuple[asyncio.subprocess.Process, float]:
        """A new Envoy after the delay, and the next delay. A machine without room for it is asked again."""
        while True:
            said = f"; it said: {self._said()}" if self._lines else ""
            log.error("Envoy %s; a new one starts in %.1f s%s", why, delay, said)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)
            try:
                return await self._spawn(), delay
            except OSError as error:
                why = f"could not be started ({error})"

    async def _drain(self, seconds: float) -> None:
        try:
            await self._admin.drain()
            async with asyncio.timeout(seconds):
                await self._until_idle()
        except TimeoutError:
            log.warning("calls did not end within %g s", seconds)
        except AdminError as error:
            log.warning("Envoy ends without drain: %s", error)

    async def _until_idle(self) -> None:
        while True:
            active = await self._admin.stats("http.mesh.downstream_rq_active")
            if not any(active.values()):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._ending = True
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), KILL_SECONDS)
            except TimeoutError:
                log.error("Envoy ignores SIGTERM and is killed")
                process.kill()
                await process.wait()
        await asyncio.gather(*self._readers)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Envoy's log becomes ours. Lines are written as `level text`; one without a level continues the last."""
        assert process.stderr is not None
        level = logging.WARNING
        async for line in lines_of(process.stderr):
            name, _, rest = line.partition(" ")
            level, text = (LEVELS[name], rest.rstrip()) if name in LEVELS else (level, line.rstrip())
            self._lines.append(text[:LAST_CHARACTERS])
            log.log(logging.DEBUG if self._ending else level, "envoy: %s", text)

    def _said(self) -> str:
        return " | ".join(self._lines) or "nothing"


def arguments(configuration: Path, *, workers: int, drain_seconds: float) -> list[str]:
    """What Envoy is started with. Without hot restart: its shared memory would outlive a killed Envoy, and a second
    Envoy on the machine would fail on the first one's base id."""
    drain = ["--drain-time-s", str(max(1, round(drain_seconds))), "--drain-strategy", "immediate"]
    logs = ["--log-level", "warning", "--log-format", "%l %v"]
    return ["-c", str(configuration), "--concurrency", str(workers), "--disable-hot-restart", *drain, *logs]


def _end_of(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
