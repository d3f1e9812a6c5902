"""Pool: named threads for the tasks' pure functions, bounded in bytes; dead work is dropped. Stage: front."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from ortmesh.errors import Draining, OrtmeshError, Overloaded
from ortmesh.front.call import Call
from ortmesh.front.turns import Turns

R = TypeVar("R")

RETRY_SECONDS = 0.2
"""When a refused caller may come again: the functions are short (decoding a picture takes 5-50 ms)."""


class Pool:
    """Threads that run functions for calls: callers take turns, each one's own first come first served.

    What a call's function needs is in its arguments: context variables are not carried over. A call that
    expired or was cancelled while its function waited costs nothing more.
    """

    def __init__(self, threads: int, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        """Bytes of the arguments that wait or are worked on."""
        self._jobs: Turns[_Job] = Turns()
        self._idle = threading.Condition(threading.Lock())
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"ortmesh-pool-{number}", daemon=True)
            for number in range(max(threads, 1))
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Call, function: Callable[..., R], *args: Any, nbytes: int = 0, **kwargs: Any) -> R:
        """Runs a function in a thread and returns what it returns, or raises what it raises.

        Its weight is `nbytes` plus what the arguments themselves hold. Overloaded when that exceeds the bound,
        unless a model took work of the call before. Expired or Cancelled when the call was over before a thread
        was free.
        """
        call.check()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        weight = nbytes + sum(map(_weight, args)) + sum(map(_weight, kwargs.values()))
        self._submit(_Job(call, _Awaited(future), function, args, kwargs, weight))
        return await future

    def submit(
        self, call: Call, function: Callable[..., None], *args: Any, fail: Callable[[BaseException], None], nbytes: int
    ) -> None:
        """Has a thread run a function that itself tells its outcome; never blocks, from any thread.

        `fail` is called in its place when the call is over before a thread is free, and with what it raises.
        Raises Overloaded as `run` does, and Draining.
        """
        self._submit(_Job(call, _Handed(fail), function, args, {}, nbytes))

    def close(self) -> None:
        """Ends the threads after the functions that they are running; what still waits fails with Draining."""
        with self._idle:
            self._closed = True
            waiting = self._jobs.clear()
            self._idle.notify_all()
        for job in waiting:
            job.outcome.tell(None, Draining("the service is shutting down"))
        for thread in self._threads:
            thread.join()

    def _submit(self, job: _Job) -> None:
        with self._idle:
            if self._closed:
                raise Draining("the service is shutting down")
            # One call alone may exceed the bound: the message's own limit has already let it pass.
            others = self.bytes - job.call.pool_bytes
            if others and self.bytes + job.nbytes > self.max_bytes and not job.call.admitted:
                raise Overloaded("too many bytes are being decoded", retry_after_seconds=RETRY_SECONDS)
            self._count(job, job.nbytes)
            self._jobs.append(job.call.caller, job)
            self._idle.notify()

    def _take(self) -> _Job | None:
        with self._idle:
            while not self._jobs:
                if self._closed:
                    return None
                self._idle.wait()
            return self._jobs.next()

    def _work(self) -> None:
        while (job := self._take()) is not None:
            result, error = job.run()
            # Before anybody hears of it: whoever was answered must not find its own bytes still there.
            with self._idle:
                self._count(job, -job.nbytes)
            job.outcome.tell(result, error)
            # Else the thread would hold a picture until its next job comes.
            del job, result, error

    def _count(self, job: _Job, nbytes: int) -> None:
        self.bytes += nbytes
        job.call.pool_bytes += nbytes


class _Outcome(Protocol):
    """Where a function's outcome goes."""

    @property
    def wanted(self) -> bool:
        """False when nobody waits for it any more, though the call goes on."""

    def tell(self, result: Any, error: BaseException | None) -> None:
        """Tells what the function returned, or why it did not."""


class _Awaited:
    """A future on a loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self._loop = future.get_loop()

    @property
    def wanted(self) -> bool:
        """False once the future was cancelled."""
        return not self._future.cancelled()

    def tell(self, result: Any, error: BaseException | None) -> None:
        """Hands the outcome to the loop; a loop that is gone has nobody who waits."""
        try:
            self._loop.call_soon_threadsafe(_settle, self._future, result, error)
        except RuntimeError:
            if not self._loop.is_closed():
                raise


class _Handed:
    """A function that tells its outcome itself, unless it fails."""

    __slots__ = ("_fail",)
    wanted = True

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail = fail

    def tell(self, result: Any, error: BaseException | None) -> None:
        """Tells the error, if there is one."""
        if error is not None:
            self._fail(error)


class _Job:
    """One function to run for one call."""

    __slots__ = ("args", "call", "function", "kwargs", "nbytes", "outcome")

    def __init__(
        self,
        call: Call,
        outcome: _Outcome,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        nbytes: int,
    ) -> None:
        self.call = call
        self.outcome = outcome
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.nbytes = nbytes

    def run(self) -> tuple[Any, BaseException | None]:
        """What the function returned or raised; it does not run when its call is over."""
        if not self.outcome.wanted:
            return None, None
        try:
            self.call.check()
            return self.function(*self.args, **self.kwargs), None
        except BaseException as error:
            return None, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(_raisable(error))


def _raisable(error: BaseException) -> BaseException:
    """A future refuses StopIteration, and SystemExit from a worker's function must not stop the loop."""
    if isinstance(error, OrtmeshError) or (isinstance(error, Exception) and not isinstance(error, StopIteration)):
        return error
    wrapped = RuntimeError(f"the function raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def _weight(argument: Any) -> int:
    """Bytes that an argument holds: encoded bytes, messages, arrays; 0 for what is small or unknown."""
    if isinstance(argument, (bytes, bytearray, str)):
        return len(argument)
    if isinstance(argument, Message):
        return argument.ByteSize()
    size = getattr(argument, "nbytes", 0)
    return size if isinstance(size, int) else 0
