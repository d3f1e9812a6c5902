"""A small service for the front's tests: what each method does with the text that it is sent."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from ortmesh.errors import BadInput, OrtmeshError
from ortmesh.front.call import Call
from ortmesh.front.methods import Method, Reply
from ortmesh.front.requests import first_of

SERVICE = "ortmesh.test.v1.Echo"
MESSAGE_BYTES = 100_000
"""Of each message of a chat."""
PATIENCE_SECONDS = 1.5
"""For a first message, and of a method whose calls must begin before it has passed."""


class Panic(BaseException):
    """As a library in Rust raises it: no `Exception`."""


class Echo:
    """Handlers whose calls can be held, seen and let go by a test."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.ended: list[str] = []
        self.heard: list[str] = []
        self.left: list[str] = []
        self.held: list[tuple[StringValue, Call, Reply]] = []
        self.direct_entered = threading.Event()
        self.taken: list[str] = []
        """Who made the direct calls, in the order in which they were taken."""

    async def say(self, request: StringValue, call: Call) -> StringValue:
        """Echoes; `bad` is a wrong field, `bug` an exception with a secret."""
        self.calls.append(call)
        if request.value == "bad":
            raise BadInput("value", "must not be bad")
        if request.value == "bug":
            raise RuntimeError("secret of the house")
        if request.value == "panic":
            raise Panic("secret of the house")
        if request.value == "pool":
            return StringValue(value=await call.in_pool(_thread_name))
        return request

    async def hold(self, request: StringValue, call: Call) -> StringValue:
        """Answers once the test releases it."""
        self.calls.append(call)
        call.on_end(lambda: self.ended.append(request.value))
        self.entered.set()
        await self.release.wait()
        return request

    async def count(self, request: StringValue, call: Call) -> AsyncIterator[StringValue]:
        """`3` sends three messages, `flood` sends 64 KiB for ever, `hold` sends one and waits."""
        self.calls.append(call)
        call.on_end(lambda: self.ended.append(request.value))
        if request.value == "bad":
            yield StringValue(value="one")
            raise BadInput("value", "became bad")
        if request.value == "hold":
            yield StringValue(value="held")
            self.entered.set()
            await self.release.wait()
            return
        size = 65536 if request.value == "flood" else 0
        for number in range(10**9 if size else int(request.value)):
            yield StringValue(value="x" * size or str(number))

    async def chat(self, requests: AsyncIterator[StringValue], call: Call) -> AsyncIterator[StringValue]:
        """Echoes each message; `deaf` waits for the test and reads on, `bye` ends the stream, `bad` is a wrong field,
        `bug` an exception with a secret, `flood` sends 64 KiB for ever. Tells in `left` how it ended."""
        self.calls.append(call)
        how = "said all it had to say"
        try:
            async for request in requests:
                self.heard.append(request.value)
                if request.value == "bad":
                    raise BadInput("value", "became bad")
                if request.value == "bug":
                    raise RuntimeError("secret of the house")
                if request.value == "bye":
                    yield StringValue(value="bye")
                    return
                if request.value == "deaf":
                    self.entered.set()
                    await self.release.wait()
                while request.value == "flood":
                    yield StringValue(value="x" * 65536)
                yield request
            how = "heard all"
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self.left.append(how)

    async def patient(self, requests: AsyncIterator[StringValue], call: Call) -> AsyncIterator[StringValue]:
        """Gives up waiting for a message after a millisecond, again and again; echoes each, or says that there was
        none."""
        yield await first_of(requests, PATIENCE_SECONDS) or StringValue(value="nothing was said")
        while True:
            try:
                async with asyncio.timeout(0.001):
                    request = await anext(requests)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return
            yield request

    async def gather(self, requests: AsyncIterator[StringValue], call: Call) -> StringValue:
        """All messages' texts, joined; those that are wrong are replaced by what was wrong."""
        self.calls.append(call)
        texts: list[str] = []
        while True:
            try:
                texts.append((await anext(requests)).value)
            except StopAsyncIteration:
                return StringValue(value=" ".join(texts))
            except OrtmeshError as error:
                texts.append(error.reason)

    def direct(self, request: StringValue, call: Call, reply: Reply) -> bool:
        """`direct` answers from another thread, `later` is kept for the test, `no` is left to the coroutine; `slow`
        holds up the thread that received it until somebody else's call came."""
        if request.value == "no":
            return False
        if request.value == "bad":
            raise BadInput("value", "must not be bad")
        if request.value == "bug":
            raise RuntimeError("secret of the house")
        if request.value == "panic":
            raise Panic("secret of the house")
        if request.value.startswith("later"):
            call.on_end(lambda: self.ended.append(request.value))
            self.held.append((request, call, reply))
            self.direct_entered.set()
            return True
        self.taken.append(call.caller)
        if request.value == "slow" and len(set(self.taken)) == 1:
            time.sleep(0.02)
        answer = StringValue(value=f"{request.value}, from another thread").SerializeToString()
        threading.Thread(target=reply.finish, args=(answer,)).start()
        return True

    def methods(self) -> list[Method]:
        """The table's rows."""
        return [
            self._row("Say", self.say, max_request_bytes=1000),
            self._row("Hold", self.hold),
            self._row("Quick", self.hold, default_timeout_seconds=0.3),
            self._row("Count", self.count, streams=True),
            self._row("Watch", self.count, streams=True, watch=True, default_timeout_seconds=math.inf),
            self._row("Chat", self.chat, streams=True, takes_stream=True, max_request_bytes=MESSAGE_BYTES),
            self._row("Patient", self.patient, streams=True, takes_stream=True),
            self._row("Brief", self.chat, streams=True, takes_stream=True, default_timeout_seconds=PATIENCE_SECONDS),
            self._row("Gather", self.gather, takes_stream=True, max_request_bytes=1000),
            self._row("Direct", self.say, direct=self.direct),
            self._row("QuickDirect", self.say, direct=self.direct, default_timeout_seconds=0.3),
        ]

    def _row(self, name: str, handler: Any, **limits: Any) -> Method:
        return Method(path=f"/{SERVICE}/{name}", request_type=StringValue, handler=handler, **limits)


def _thread_name() -> str:
    return threading.current_thread().name
