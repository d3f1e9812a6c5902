"""The pool: bounded in bytes, and nothing dead is worked on."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ortmesh.errors import Cancelled, Draining, Expired, Overloaded
from ortmesh.front.call import Call
from ortmesh.front.pool import Pool
from tests.front.conftest import HANG_SECONDS

PATH = "/ortmesh.test.v1.Echo/Say"


class Blocker:
    """A function that holds a pool's thread until the test lets it go."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.release = threading.Event()

    def __call__(self, *_: object) -> str:
        self.running.set()
        assert self.release.wait(HANG_SECONDS)
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
    assert await asyncio.to_thread(blocker.running.wait, HANG_SECONDS)
    return blocker, task


async def test_results_and_errors_come_back(pool: Pool) -> None:
    call = Call(PATH, pool=pool)
    assert await call.in_pool(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await call.in_pool(divmod, 7, 0)


@pytest.mark.parametrize("together", [1, 2, 3, 7])
async def test_items_are_made_in_the_pool_and_none_before_it_is_asked_for(pool: Pool, together: int) -> None:
    made: list[str] = []
    items = (made.append(threading.current_thread().name) or number for number in range(6))  # type: ignore[func-returns-value]
    taken = []
    async for item in Call(PATH, pool=pool).each(items, together=together):
        taken.append(item)
        assert len(made) <= item + together
    assert taken == list(range(6))
    assert {name.startswith("ortmesh-pool") for name in made} == {True}


async def test_an_item_that_fails_ends_those_behind_it(pool: Pool) -> None:
    items = Call(PATH, pool=pool).each(6 // number for number in (3, 2, 0, 1))
    assert [await anext(items), await anext(items)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        await anext(items)
    assert await anext(items, None) is None


async def test_who_left_is_made_no_more_items(pool: Pool) -> None:
    call = Call(PATH, pool=pool)
    items = call.each([4, 5])
    assert await anext(items) == 4
    call.cancel()
    with pytest.raises(Cancelled):
        await anext(items)


async def test_what_would_stop_a_loop_becomes_a_plain_error(pool: Pool) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await Call(PATH, pool=pool).in_pool(next, iter(()))


async def test_bytes_over_the_bound_are_refused(pool: Pool) -> None:
    """Also those of a call whose small functions were run before: a model has not begun on it."""
    late = Call(PATH, pool=pool)
    await late.in_pool(len, b"x")
    blocker, running = await _blocked(pool, b"x" * 600)
    for call in (late, Call(PATH, pool=pool)):
        with pytest.raises(Overloaded) as caught:
            await pool.run(call, len, b"x" * 600)
        assert caught.value.retry_after_seconds is not None
    blocker.release.set()
    assert await running == "done"
    assert await pool.run(late, len, b"x" * 600) == 600


async def test_stages_after_a_model_took_work_are_never_refused(pool: Pool) -> None:
    call = Call(PATH, pool=pool)
    call.admitted = True
    blocker, running = await _blocked(pool, b"x" * 900)
    later = asyncio.create_task(call.in_pool(len, b"x" * 900))
    blocker.release.set()
    assert (await running, await later) == ("done", 900)


async def test_one_call_may_exceed_the_bound_alone(pool: Pool) -> None:
    """Whether by one function or by several at once: its message's own limit has let it pass."""
    assert await pool.run(Call(PATH, pool=pool), len, b"x" * 5000) == 5000
    call = Call(PATH, pool=pool)
    assert await asyncio.gather(*(call.in_pool(len, b"x" * 900) for _ in range(3))) == [900] * 3
    await asyncio.to_thread(pool.close)
    assert (pool.bytes, call.pool_bytes) == (0, 0)


async def test_what_another_thread_submits_tells_its_outcome_itself(pool: Pool) -> None:
    told: list[object] = []
    ended = threading.Event()

    def tell(outcome: object) -> None:
        told.append(outcome)
        ended.set()

    def submit(call: Call, function: Callable[[int], None]) -> None:
        ended.clear()
        pool.submit(call, function, 7, nbytes=4, fail=tell)

    def break_(number: int) -> None:
        raise ValueError(number)

    await asyncio.to_thread(submit, Call(PATH, pool=pool), tell)
    assert await asyncio.to_thread(ended.wait, HANG_SECONDS)
    await asyncio.to_thread(submit, Call(PATH, pool=pool), break_)
    assert await asyncio.to_thread(ended.wait, HANG_SECONDS)
    await asyncio.to_thread(submit, Call(PATH, pool=pool, deadline=-math.inf), tell)
    assert await asyncio.to_thread(ended.wait, HANG_SECONDS)
    assert told[0] == 7
    assert [type(error) for error in told[1:]] == [ValueError, Expired]


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
    handed: list[BaseException] = []
    pool.submit(Call(PATH, pool=pool), print, nbytes=0, fail=handed.append)
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    with pytest.raises(Draining):
        await waiting
    blocker.release.set()
    assert await running == "done"
    await closing
    assert [type(error) for error in handed] == [Draining]
    with pytest.raises(Draining):
        await pool.run(Call(PATH, pool=pool), len, b"")


async def test_callers_take_turns(pool: Pool) -> None:
    """One's flood does not hold up another's single text; what is of one caller stays in its order."""
    blocker, blocked = await _blocked(pool)
    done: list[str] = []
    calls = {name: Call(PATH, pool=pool, caller=name) for name in ("flood", "other")}
    work = [calls["flood"].in_pool(done.append, f"flood {number}") for number in range(5)]
    waiting = [asyncio.ensure_future(each) for each in (*work, calls["other"].in_pool(done.append, "other"))]
    await asyncio.sleep(0)
    blocker.release.set()
    await asyncio.gather(blocked, *waiting)
    assert done.index("other") == 1
    assert [each for each in done if each != "other"] == [f"flood {number}" for number in range(5)]
