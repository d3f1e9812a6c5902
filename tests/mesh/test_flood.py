"""Floods and bursts on a real service: nobody is forgotten, nothing is computed in vain, nobody starves a neighbour.

What holds to the call is asserted to the call, by the service's own counters; rates only with much room, for busy
machines. The figures are in bench/results/flood.md.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.flood.bodies import infer
from bench.flood.burst import burst
from bench.flood.callers import Call, one_process
from bench.flood.callers import call as call_at_once
from bench.flood.flood import Flood, flood
from bench.flood.graph import steady
from bench.flood.plan import INFER, Plan
from bench.flood.service import Counted, Service, serving
from ortmesh.serving.add import add
from ortmesh.serving.store import Store

CALLS, RATE = 1_000, 500.0
"""Five times what the model can do, and a quarter of what grpcio's front can."""
ROUNDS, QUICK_ROUNDS = 600, 50
"""Some 10 ms a row, and 1 ms."""
MAX_ITEMS = 16
"""What takes less than the patient ones wait: a call that is not refused is answered."""
PATIENT_SECONDS, HASTY_SECONDS = 30.0, 0.2
MAX_BYTES = 16 * 1024
MEBIBYTE = 1024 * 1024
MAX_GROWTH_BYTES = 96 * MEBIBYTE
"""What a thousand calls in flight take, and what the allocator keeps of it."""


@pytest.fixture(scope="module", params=["native", "grpcio"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Without the catalogue's models: `bounded` has room for few items, `narrow` for few bytes, others for all."""
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as folder:
        store = Store(Path(folder) / "models")
        graph, quick = steady(Path(folder) / "steady", ROUNDS), steady(Path(folder) / "quick", QUICK_ROUNDS)
        for file, name, batching in (
            (graph, "bounded", f"max_items: {MAX_ITEMS}"),
            (quick, "narrow", f"max_bytes: {MAX_BYTES}"),
            (graph, "deep", "max_items: 4096"),
            (quick, "roomy", "max_items: 4096"),
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
    return flood(service, model="bounded", calls=CALLS, rate=RATE, timeout=PATIENT_SECONDS, seconds=0.7, call=call)


@pytest.fixture(scope="module")
def hasty(service: Service, call: Call) -> Flood:
    """What calls came to of which most can't be answered within their deadline, with room for all in the queue."""
    return flood(service, model="deep", calls=CALLS, rate=RATE, timeout=HASTY_SECONDS, seconds=0, call=call)


def test_in_a_flood_every_call_is_answered_or_refused(flooded: Flood) -> None:
    """Whoever is let in is answered within the deadline, and nobody is computed who is not answered."""
    assert flooded.answers.codes.keys() == {"OK", "RESOURCE_EXHAUSTED"}
    assert flooded.answers.codes.total() == CALLS
    assert flooded.counted.rows == flooded.counted.taken == len(flooded.answers.ok)
    assert flooded.counted.overloaded == len(flooded.refused)


def test_every_refused_call_is_told_when_to_come_again(flooded: Flood) -> None:
    """When a full queue will be empty by what was measured: with much room for a busy machine."""
    shortest, longest = flooded.retry_seconds
    assert not flooded.untold
    assert 0 < shortest <= longest
    assert longest < 20 * MAX_ITEMS / flooded.unloaded


def test_a_flood_leaves_the_models_rate_as_it_was(flooded: Flood) -> None:
    """Within what callers and service take from each other on a busy machine: a rate that collapses is a hundredth."""
    good = [each.at + each.seconds for each in flooded.answers.ok]
    assert len(good) / (max(good) - min(good)) > flooded.unloaded / 10


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


def test_what_was_left_in_a_flood_is_not_computed(service: Service, call: Call) -> None:
    """Of 150 calls at once every second one is left soon, when most of them wait. A few were computed by then."""
    service.until_idle()
    before = service.counted("deep")
    (answers,) = call(Plan(service.address, INFER, (infer("deep"),), calls=150, leave_after=0.02))
    service.until_idle()
    counted = service.counted("deep") - before
    good = answers.codes["OK"]
    assert good + answers.codes["CANCELLED"] == 150
    assert good >= 75
    assert counted.taken + counted.cancelled <= 150
    assert 0 <= counted.taken - good < counted.cancelled


def test_a_callers_burst_is_overtaken_by_another_callers_calls(service: Service) -> None:
    """Six hundred calls at once: in order of arrival the other's would wait for them."""
    mine = Plan(service.address, INFER, (infer("roomy"),), calls=20, rate=20, caller="steady", channels=1)
    other = Plan(service.address, INFER, (infer("roomy"),), calls=600, burst=600, caller="burst")
    outcome = burst(service, "roomy", mine, other, rounds=1)
    assert Counter(
        each.code for side in (outcome.alone, outcome.beside, outcome.other) for each in side.all
    ).keys() == {"OK"}
    assert math.isfinite(outcome.ratio(99))
    assert outcome.beside.percentile(50) < outcome.other.percentile(50) / 2


def test_in_a_flood_the_urgent_are_quicker_and_the_others_are_not_forgotten(service: Service) -> None:
    """All at once: of the usual ones there are seconds' worth, beside which the low ones have a share.

    Whose call the service reads first is chance: what comes to an idle service runs at once, whatever its priority.
    """

    def plan(calls: int, priority: str = "") -> Plan:
        return Plan(service.address, INFER, (infer("deep"),), calls, priority=priority)

    usual, high, low = call_at_once(plan(150), plan(10, "high"), plan(10, "low"))
    assert all(each.ok for side in (usual, high, low) for each in side.all)
    assert high.percentile(50) < usual.percentile(50)
    assert low.percentile(50) < usual.percentile(100)


def test_counters_subtract() -> None:
    """By which all of the above is counted."""
    assert Counted(5, 4, 3, 2, 1, 1) - Counted(1, 1, 1, 1, 1, 1) == Counted(4, 3, 2, 1, 0, 0)
