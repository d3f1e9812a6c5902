"""Callers: processes of their own, each of which follows a plan, so that no caller's interpreter slows another's.

`python -m bench.flood.callers` reads a plan as a line of JSON, says `ready` once it is connected, begins at the next
line, and writes its answers; then it reads the next plan. With grpc.aio one process makes some 3,000 calls a second on
a free core.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple

import grpc
import grpc.aio

from bench.attack.processes import CHECKOUT
from bench.flood.plan import Answer, Answers, Plan
from ortmesh.client import channel_options, retry_after_seconds

Call = Callable[..., list[Answers]]
"""`call`, or what does the same with processes that are there already."""
Method = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
CALLER_KEY, PRIORITY_KEY = "x-ortmesh-caller", "ortmesh-priority"


class Callers:
    """A process. `take` a plan, wait until it is ready, `begin`, then ask for its answers."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "bench.flood.callers"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
        )

    def take(self, plan: Plan) -> None:
        """Has it connect."""
        self._tell(json.dumps(asdict(plan)))

    def until_ready(self) -> None:
        """Returns once it is connected."""
        if (said := self._hear()) != "ready":
            raise RuntimeError(f"a caller could not begin: {said!r}")

    def begin(self) -> None:
        """Its calls begin now."""
        self._tell("go")

    def answers(self) -> Answers:
        """Waits for the end of all its calls."""
        heard = json.loads(self._hear())
        return Answers([Answer(*each) for each in heard])

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


@contextlib.contextmanager
def calling(*plans: Plan) -> Iterator[Sequence[Callers]]:
    """The processes of these plans, connected; none of them has begun."""
    with contextlib.ExitStack() as stack:
        made = []
        for plan in plans:
            made.append(Callers())
            stack.callback(made[-1].close)
            made[-1].take(plan)
        for each in made:
            each.until_ready()
        yield made


def call(*plans: Plan) -> list[Answers]:
    """Follows the plans side by side; their answers in the same order."""
    with calling(*plans) as callers:
        for each in callers:
            each.begin()
        return [each.answers() for each in callers]


@contextlib.contextmanager
def one_process() -> Iterator[Call]:
    """`call` by a process that is started once, for half a second less a call; plans one after another."""
    callers = Callers()

    def follow_each(*plans: Plan) -> list[Answers]:
        heard = []
        for plan in plans:
            callers.take(plan)
            callers.until_ready()
            callers.begin()
            heard.append(callers.answers())
        return heard

    try:
        yield follow_each
    finally:
        callers.close()


class _Run:
    """One plan, in this process."""

    def __init__(self, plan: Plan, methods: Sequence[Method]) -> None:
        self._plan = plan
        self._methods = methods
        self._requests = [bytes.fromhex(each) for each in plan.requests]
        said = ((CALLER_KEY, plan.caller), (PRIORITY_KEY, plan.priority))
        self._metadata = tuple((key, value) for key, value in said if value)
        self._made = 0
        self.answers: list[Answer] = []

    async def follow(self) -> None:
        """Makes all calls and waits for their ends."""
        if self._plan.in_flight:
            until = time.monotonic() + self._plan.seconds
            await asyncio.gather(*(self._again_and_again(until) for _ in range(self._plan.in_flight)))
        else:
            await self._in_time()

    async def _again_and_again(self, until: float) -> None:
        while time.monotonic() < until:
            await self._one()

    async def _in_time(self) -> None:
        at_once = self._plan.burst or 1
        due, draw = time.monotonic(), random.Random(self._plan.calls)
        async with asyncio.TaskGroup() as running:
            for number in range(self._plan.calls):
                running.create_task(self._one())
                if self._plan.rate and (number + 1) % at_once == 0:
                    rate = self._plan.rate
                    due += draw.expovariate(rate) if self._plan.at_random else 1 / rate
                    # A turn of the loop at least, so that the calls leave also when they are late.
                    await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _one(self) -> None:
        number = self._made
        self._made += 1
        method = self._methods[number % len(self._methods)]
        begin = time.monotonic()
        sent = method(self._requests[number % len(self._requests)], timeout=self._plan.timeout, metadata=self._metadata)
        if self._plan.leave_after and number % 2:
            asyncio.get_running_loop().call_later(self._plan.leave_after, sent.cancel)
        code, retry, text = "OK", None, ""
        try:
            await sent
        except grpc.aio.AioRpcError as error:
            code, retry, text = error.code().name, retry_after_seconds(error), error.details() or ""
        except asyncio.CancelledError:
            if not sent.cancelled():
                raise
            code = "CANCELLED"
        self.answers.append(Answer(begin, time.monotonic() - begin, code, retry, text))


async def _follow(plan: Plan) -> Answers:
    """Connects, and makes all calls once it is told to."""
    # Each channel a connection of its own: else all share one.
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(plan.address, options))
            for _ in range(plan.channels)
        ]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        run = _Run(plan, [channel.unary_unary(plan.path) for channel in channels])
        await run.follow()
    return Answers(run.answers)


async def _main() -> None:
    usual = os.nice(0)
    while line := await asyncio.to_thread(sys.stdin.readline):
        plan = Plan(**json.loads(line))
        os.nice(max(0, usual + plan.nice - os.nice(0)))  # it can't be taken back
        answers = await _follow(plan)
        print(json.dumps([astuple(each) for each in answers.all]), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
