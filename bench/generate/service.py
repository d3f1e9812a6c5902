"""Service: the language service in a process of its own, with the model that writes alone, and a caller of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc.aio

from bench.attack.processes import CHECKOUT, read
from bench.generate.jobs import Job
from bench.generate.texts import Text, Wave, checked
from bench.generate.times import TELL_SECONDS, Sums
from bench.mixed.service import NANOSECONDS, OTHER, ROOMS
from ortmesh.cli.health import until_loaded
from ortmesh.nlp.v1.nlp_pb2 import GenerateRequest
from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceStub
from ortmesh.serving import kept

START_SECONDS, STOP_SECONDS = 120.0, 60.0
TIMEOUT_SECONDS = 600.0
READING = "times"
"""The thread of `times`, which is the bench's own."""


class Service:
    """A running one, as a contestant."""

    name = "service"

    def __init__(self, address: str, pid: int, times: Path, runner: asyncio.Runner) -> None:
        self.address = address
        self.pid = pid
        self._times = times
        self._runner = runner
        self._channel = runner.run(_connected(address))
        self._stub = NlpServiceStub(self._channel)

    def write(self, jobs: Sequence[Job], streams: int) -> Wave:
        """Through NlpService.Generate, each text in a call of its own."""
        return self._runner.run(self._write(jobs, streams))

    def close(self) -> None:
        """Its caller's connection."""
        self._runner.run(self._channel.close())

    async def _write(self, jobs: Sequence[Job], streams: int) -> Wave:
        texts = [Text(0.0, 0.0) for _ in jobs]
        waiting = iter([number for number, job in enumerate(jobs) if not job.after])
        start = time.perf_counter()

        async def call(number: int) -> None:
            job, text = jobs[number], texts[number]
            text.sent = text.began = time.perf_counter() - start
            request = GenerateRequest(text=job.prompt, max_tokens=job.max_tokens)
            async for answer in self._stub.Generate(request, timeout=TIMEOUT_SECONDS):
                if answer.text:
                    text.at.append(time.perf_counter() - start)
                    text.text += answer.text
                if answer.HasField("usage"):
                    text.count = answer.usage.generated_tokens

        async def stream() -> None:
            for number in waiting:  # one iterator for all streams
                await call(number)

        async def come(number: int) -> None:
            await asyncio.sleep(jobs[number].after)
            await call(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(stream())
            for number, job in enumerate(jobs):
                if job.after:
                    group.create_task(come(number))
        return checked(Wave(jobs, texts, time.perf_counter() - start))

    def resident_bytes(self) -> int:
        """Its memory now."""
        return read([self.pid])[self.pid].resident_bytes

    def sums(self) -> Sums:
        """What its engine's parts took since the start."""
        time.sleep(2 * TELL_SECONDS)
        return {part: (calls, seconds) for part, (calls, seconds) in json.loads(self._times.read_text()).items()}

    def cpu_seconds(self) -> Counter[str]:
        """CPU time by room."""
        taken: Counter[str] = Counter()
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name = (task / "comm").read_text().strip()
                if name != READING:
                    room = next((room for begins, room in ROOMS if name.startswith(begins)), OTHER)
                    taken[room] += int((task / "schedstat").read_text().split()[0]) / NANOSECONDS  # type: ignore[assignment]
        return taken


@contextlib.contextmanager
def running(model: Path, threads: int) -> Iterator[Service]:
    """The service with a copy of one model's folder, ready. RuntimeError when it does not start."""
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as name:  # short enough for a socket
        folder = Path(name)
        address, log, times = f"unix:{folder}/s", folder / "log", folder / "times.json"
        place = folder / "models" / model.parent.name / model.name
        shutil.copytree(model, place, ignore=shutil.ignore_patterns(f"{kept.FILE}*"))  # it keeps what it measures there
        command = [sys.executable, "-m", "bench.generate.served", str(times), "--listen", address]
        command += ["--models", str(folder / "models"), "--threads", str(threads)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ}, cwd=CHECKOUT)
        try:
            with asyncio.Runner() as runner:
                _until_ready(address, process, log, runner)
                with contextlib.closing(Service(address, process.pid, times, runner)) as service:
                    yield service
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()


async def _connected(address: str) -> grpc.aio.Channel:
    channel = grpc.aio.insecure_channel(address)
    await channel.channel_ready()
    return channel


def _until_ready(address: str, process: subprocess.Popen[bytes], log: Path, runner: asyncio.Runner) -> None:
    try:
        runner.run(asyncio.wait_for(_ended_or_loaded(address, process), START_SECONDS))
    except TimeoutError:
        raise RuntimeError(f"the language service does not start:\n{log.read_text()}") from None
    if process.poll() is not None:
        raise RuntimeError(f"the language service has ended:\n{log.read_text()}")


async def _ended_or_loaded(address: str, process: subprocess.Popen[bytes]) -> None:
    loaded = asyncio.create_task(until_loaded(address))
    while not loaded.done() and process.poll() is None:
        await asyncio.wait([loaded], timeout=0.2)
    if not loaded.done():
        loaded.cancel()
    else:
        loaded.result()
