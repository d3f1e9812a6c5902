"""A normal caller in a process of its own: a good call every 20 ms, each reported in a line of JSON.

`python -m bench.attack.caller ADDRESS PATH REQUEST` (the request in hex), until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import grpc.aio

from bench.attack.door import Door
from bench.attack.processes import CHECKOUT

INTERVAL_SECONDS = 0.02
TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One call."""

    at: float
    """Its beginning, on the machine's monotonic clock."""
    seconds: float
    code: str
    text: str
    """What an error said."""


async def call_once(address: str, path: str, request: bytes, seconds: float) -> Sample:
    """One call on a channel of its own, which may take so long."""
    async with grpc.aio.insecure_channel(address) as channel:
        return await _call(channel, path, request, seconds)


async def _call(channel: grpc.aio.Channel, path: str, request: bytes, seconds: float) -> Sample:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    begin = time.monotonic()
    code, text = "OK", ""
    try:
        await method(request, timeout=seconds)
    except grpc.aio.AioRpcError as error:
        code, text = error.code().name, f"{error.details()} {error.trailing_metadata()}"
    return Sample(begin, time.monotonic() - begin, code, text)


class Caller:
    """The process, and what it has reported."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._samples: list[Sample] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def between(self, begin: float, end: float) -> list[Sample]:
        """The calls that began within a time and have ended."""
        return [sample for sample in list(self._samples) if begin <= sample.at < end]

    def stop(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._samples.append(Sample(**json.loads(line)))


@contextlib.contextmanager
def calling(door: Door) -> Iterator[Caller]:
    """A normal caller as long as the block lasts."""
    command = [sys.executable, "-m", "bench.attack.caller", door.address, door.cheap, door.cheap_request.hex()]
    caller = Caller(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT))
    try:
        yield caller
    finally:
        caller.stop()


async def _main(address: str, path: str, request: str) -> None:
    body = bytes.fromhex(request)
    running: set[asyncio.Task[None]] = set()

    async def one(channel: grpc.aio.Channel) -> None:
        sample = await _call(channel, path, body, TIMEOUT_SECONDS)
        line = {"at": sample.at, "seconds": sample.seconds, "code": sample.code, "text": sample.text}
        print(json.dumps(line), flush=True)

    async with grpc.aio.insecure_channel(address) as channel:
        due = time.monotonic()
        while True:
            task = asyncio.create_task(one(channel))
            running.add(task)
            task.add_done_callback(running.discard)
            due += INTERVAL_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
