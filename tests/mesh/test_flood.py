"""Floods and bursts on a real service: nobody is forgotten, nothing is computed in vain, nobody starves a neighbour.

What is asserted holds to the call, by the service's own counters and by the order of its answers, however busy the
machine is. Rates and latencies are in bench/results/flood.md.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from bench.flood.bodies import infer
from bench.flood.callers import CALLER_KEY, PRIORITY_KEY, Call, one_process
from bench.flood.flood import Flood, flood
from bench.flood.graph import steady
from bench.flood.plan import INFER, Plan
from bench.flood.service import Counted, Service, serving
from ortmesh.serving.add import add
from ortmesh.serving.batcher.pile import LONGEST_RETRY_SECONDS
from ortmesh.serving.store import Store

CALLS, RATE = 1_000, 500.0
"""Five times what the model can do, and a quarter of what grpcio's front can."""
ROUNDS, QUICK_ROUNDS = 600, 50
"""Some 10 ms a row, and 1 ms."""
MAX_ITEMS = 16
"""What takes less than the patient ones wait: a call that is not refused is answered."""
PATIENT_SECONDS, HASTY_SECONDS = 60.0, 1.0
HASTY_CHANNELS = 64
"""So that fewer than twenty calls are left on each connection: the native server ends one on which twenty were left
before it had heard of them."""
WAITING = 300
"""Calls that come before those whose turn is looked at: seconds of work, of which little is done when the last of them
has come."""
MAX_BYTES = 16 * 1024
MEBIBYTE = 1024 * 1024
MAX_GROWTH_BYTES = 96 * MEBIBYTE
"""What a thousand calls in flight take, and what the allocator keeps of it."""


@pytest.fixture(scope="module", params=["native", "grpcio"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Without the catalogue's models: `bounded` has room for few items, `narrow` for few bytes, `deep` for all."""
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as folder:
        store = Store(Path(folder) / "models")
        graph, quick = steady(Path(folder) / "steady", ROUNDS), steady(Path(folder) / "quick", QUICK_ROUNDS)
        for file, name, batching in (
            (graph, "bounded", f"max_items: {MAX_ITEMS}"),
            (quick, "narrow", f"max_bytes: {MAX_BYTES}"),
            (graph, "deep", "max_items: 4096"),
        ):
            add(file, name, "nlp", store)
            (card,) = (store.root / name).rglob("card.yaml")
            card.write_text(f"{card.read_text()}batching: {{{batching}}}\n")
        with serving(store.root, request.param) as running:
            yield running


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """Callers in a process of their own."""
    with one_process() as made:
        yield made


@pytest.fixture(scope="module")
def flooded(service: Service, call: Call) -> Flood:
    """What calls of patient callers came to, of which the queue has room for a few."""
    return flood(service, model="bounded", calls=CALLS, rate=RATE, timeout=PATIENT_SECONDS, seconds=0, call=call)


@pytest.fixture(scope="module")
def hasty(service: Service, call: Call) -> Flood:
    """What calls came to of which most can't be answered within their deadline, with room for all in the queue: ten
    seconds of work at once, for callers who wait one."""
    return flood(
        service,
        model="deep",
        calls=CALLS,
        rate=0,
        timeout=HASTY_SECONDS,
        seconds=0,
        channels=HASTY_CHANNELS,
        call=call,
    )


def test_in_a_flood_every_call_is_answered_or_refused(flooded: Flood) -> None:
    """Whoever is let in is answered within the deadline, and nobody is computed who is not answered."""
    assert flooded.answers.codes.keys() == {"OK", "RESOURCE_EXHAUSTED"}
    assert flooded.answers.codes.total() == CALLS
    assert flooded.counted.rows == flooded.counted.taken == len(flooded.answers.ok)
    assert flooded.counted.overloaded == len(flooded.refused)


def test_every_refused_call_is_told_when_to_come_again(flooded: Flood) -> None:
    shortest, longest = flooded.retry_seconds
    assert not flooded.untold
    assert 0 < shortest <= longest <= LONGEST_RETRY_SECONDS


def test_a_flood_takes_no_more_memory_than_its_bounds_and_the_next_call_is_answered(
    flooded: Flood, service: Service
) -> None:
    before, highest, after = flooded.resident
    assert highest - before < MAX_GROWTH_BYTES
    assert after - before < MAX_GROWTH_BYTES
    assert flooded.again.ok
    assert service.in_flight() == 0


def test_what_a_flood_left_waiting_past_its_deadline_is_not_computed(hasty: Flood) -> None:
    """An item is computed or dropped, not both; the computed ones were answered, or became late in the very run that
    computed them."""
    counted = hasty.counted
    assert not hasty.strange
    assert hasty.answers.codes.total() == CALLS
    assert counted.taken + counted.expired + counted.cancelled <= CALLS
    assert len(hasty.answers.ok) <= counted.rows <= counted.taken
    assert counted.expired + counted.cancelled > counted.taken
    assert hasty.again.ok


def test_a_full_queue_in_bytes_refuses_with_the_time_to_come_again(service: Service, call: Call) -> None:
    """Each item has a quarter of the bytes that may wait, in two parts."""
    plan = Plan(service.address, INFER, (infer("narrow", rows=MAX_BYTES // 4 // 64),), calls=40)
    (answers,) = call(plan)
    assert answers.codes.keys() == {"OK", "RESOURCE_EXHAUSTED"}
    assert answers.codes.total() == 40
    refused = [each for each in answers.all if not each.ok]
    assert all(each.retry_seconds and "bytes" in each.text for each in refused)
    assert service.counted("narrow").overloaded == 2 * len(refused)


async def test_a_callers_burst_is_overtaken_by_another_callers_call(service: Service) -> None:
    """In order of arrival it would wait for all of them."""
    ends = await answered(service, *[{CALLER_KEY: "burst"}] * WAITING, {CALLER_KEY: "other"})
    assert ends.index(WAITING) < WAITING // 2


async def test_in_a_flood_the_urgent_overtake_and_the_others_are_not_forgotten(service: Service) -> None:
    """Beside the usual ones the low ones have a share."""
    usual, high, low = range(WAITING), range(WAITING, WAITING + 10), range(WAITING + 10, WAITING + 20)
    ends = await answered(
        service, *[{}] * len(usual), *[{PRIORITY_KEY: "high"}] * len(high), *[{PRIORITY_KEY: "low"}] * len(low)
    )
    assert max(ends.index(call) for call in high) < WAITING // 2
    assert sorted(ends.index(call) for call in low)[len(low) // 2] < max(ends.index(call) for call in usual)


async def answered(service: Service, *metadata: dict[str, str]) -> list[int]:
    """Sends a call with each of the metadata, all at once and in this order on one connection; the numbers of the
    calls in the order in which they were answered."""
    service.until_idle()
    request, ends = bytes.fromhex(infer("deep")), list[int]()
    async with grpc.aio.insecure_channel(service.address) as channel:
        await channel.channel_ready()
        method = channel.unary_unary(INFER)

        async def one(number: int, said: dict[str, str]) -> None:
            await method(request, timeout=60, metadata=tuple(said.items()))
            ends.append(number)

        await asyncio.gather(*(one(number, said) for number, said in enumerate(metadata)))
    return ends


def test_counters_subtract() -> None:
    """By which all of the above is counted."""
    assert Counted(5, 4, 3, 2, 1, 1) - Counted(1, 1, 1, 1, 1, 1) == Counted(4, 3, 2, 1, 0, 0)
