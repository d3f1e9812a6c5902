"""The pool: bounded in bytes, and nothing dead is worked on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from ortmesh.errors import Cancelled, Draining, Expired, Overloaded
from ortmesh.front.call import Call
from ortmesh.front.pool import Pool

PATH = "/ortmesh.test.v1.Echo/Say"


class Blocker:
    """A function that holds a pool's thread until the test lets it go."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.release = threading.Event()

    def __call__(self, *_: object) -> str:
        self.running.set()
        assert self.release.wait(5)
        return "done"


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(threads=1, max_bytes=1000)
    yield made
    made.close()


async def _blocked(pool: Pool, *args: object) -> tuple[Blocker, asyncio.Task[str]]:
    """Occupies the pool's only thread."""
    blocker = Blocker()
    task = asyncio.create_task(pool.run(Call(PATH, pool=pool), blocker, *args))
    assert await asyncio.to_thread(blocker.running.wait, 5)
    return blocker, task


async def test_results_and_errors_come_back(pool: Pool) -> None:
    call = Call(PATH, pool=pool)
    assert await call.in_pool(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await call.in_pool(divmod, 7, 0)


async def test_what_would_stop_a_loop_becomes_a_plain_error(pool: Pool) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await Call(PATH, pool=pool).in_pool(next, iter(()))


async def test_bytes_over_the_bound_are_refused_at_a_calls_first_stage(pool: Pool) -> None:
    blocker, running = await _blocked(pool, b"x" * 600)
    with pytest.raises(Overloaded) as caught:
        await pool.run(Call(PATH, pool=pool), len, b"x" * 600)
    assert caught.value.retry_after_seconds is not None
    blocker.release.set()
    assert await running == "done"
    assert await pool.run(Call(PATH, pool=pool), len, b"x" * 600) == 600


async def test_later_stages_of_a_call_are_never_refused(pool: Pool) -> None:
    call = Call(PATH, pool=pool)
    await call.in_pool(len, b"x")
    blocker, running = await _blocked(pool, b"x" * 900)
    later = asyncio.create_task(call.in_pool(len, b"x" * 900))
    blocker.release.set()
    assert (await running, await later) == ("done", 900)


async def test_one_function_may_exceed_the_bound_alone(pool: Pool) -> None:
    assert await pool.run(Call(PATH, pool=pool), len, b"x" * 5000) == 5000


async def test_work_that_expired_while_it_waited_is_dropped(pool: Pool) -> None:
    blocker, running = await _blocked(pool)
    ran: list[bool] = []
    call = Call(PATH, pool=pool, deadline=time.monotonic() + 0.05)
    late = asyncio.create_task(pool.run(call, ran.append, True))
    await asyncio.sleep(0.1)
    blocker.release.set()
    with pytest.raises(Expired):
        await late
    await running
    assert ran == []


async def test_work_of_a_caller_that_left_is_dropped(pool: Pool) -> None:
    blocker, running = await _blocked(pool)
    ran: list[bool] = []
    left, cancelled = Call(PATH, pool=pool), Call(PATH, pool=pool)
    first = asyncio.create_task(pool.run(left, ran.append, True))
    second = asyncio.create_task(pool.run(cancelled, ran.append, True))
    await asyncio.sleep(0)
    left.cancel()
    second.cancel()
    blocker.release.set()
    with pytest.raises(Cancelled):
        await first
    with pytest.raises(asyncio.CancelledError):
        await second
    await running
    assert ran == []
    assert pool.bytes == 0


async def test_a_closing_pool_tells_those_that_wait() -> None:
    pool = Pool(threads=1, max_bytes=1000)
    blocker, running = await _blocked(pool)
    waiting = asyncio.create_task(pool.run(Call(PATH, pool=pool), len, b""))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    with pytest.raises(Draining):
        await waiting
    blocker.release.set()
    assert await running == "done"
    await closing
    with pytest.raises(Draining):
        await pool.run(Call(PATH, pool=pool), len, b"")
