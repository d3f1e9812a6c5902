"""The simulation of batching: its recorded traces, how they are replayed, and that it says the same each time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bench.batching import traces
from bench.batching.devices import devices
from bench.batching.record import CASES, Caller, Case, record
from bench.batching.simulate import BY_COST, CONTESTANTS, simulate
from bench.batching.workload import workload
from ortmesh.serving.store import Store

NAMES = [case.name for case in CASES]
MOST_BYTES = 100_000
ARRIVAL_ORDER = CONTESTANTS[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_is_in_order_and_says_how_it_was_made(name: str) -> None:
    trace = traces.read(name)
    assert trace[0].seconds == 0
    assert all(before.seconds <= after.seconds for before, after in pairwise(trace))
    assert all(each.size > 0 and each.deadline > 0 and each.caller for each in trace)
    assert f"| `{name}` |" in (traces.FOLDER / "README.md").read_text()


def test_all_traces_together_are_small() -> None:
    assert sum(file.stat().st_size for file in traces.FOLDER.glob("*.csv")) <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_keeps_the_items_and_changes_the_pace(name: str) -> None:
    (device, *_) = (each for each in devices().values() if name in each.traces)
    trace, slow, fast = traces.read(name), workload(device, name, 0.5, 0), workload(device, name, 1.0, 0)
    assert [each.caller for each in slow] == [each.caller for each in trace]
    assert slow[-1].seconds == pytest.approx(2 * fast[-1].seconds)
    assert [each.seconds for each in slow] == pytest.approx([2 * each.seconds for each in fast])
    assert {each.size for each in fast} <= set(range(1, device.largest + 1))


def test_the_simulation_says_the_same_each_time() -> None:
    device = devices()["tensorrt"]
    first, second = (simulate(device, BY_COST, workload(device, "questions", 0.95, 0)) for _ in range(2))
    assert first == second
    assert first.items == len(traces.read("questions"))


def test_by_cost_keeps_searches_in_time_beside_a_job_that_indexes() -> None:
    device = devices()["cpu"]
    items = workload(device, "search-beside-indexing", 0.95, 0)
    by_cost, in_order = (simulate(device, each, items) for each in (BY_COST, ARRIVAL_ORDER))
    assert 0 < by_cost.urgent < by_cost.items
    assert by_cost.urgent_goodput > 0.9
    assert in_order.urgent_goodput < 0.5


def test_calls_of_a_running_service_are_recorded(store: Store, tmp_path: Path) -> None:
    def embed(caller: Caller) -> None:
        caller.embed(["two words", "and four more words"], 30.0)

    model = "all-minilm-l6-v2"
    case = Case("short", "nlp", model, serves=(model,), seconds=0.5, callers={"somebody": embed})
    record(case, store.root, tmp_path)
    trace = traces.read("short", tmp_path)
    assert trace[0].seconds == trace[1].seconds == 0
    assert [each.size for each in trace[:2]] == [4, 6]
    assert {each.caller for each in trace} == {"somebody"}
    assert all(15 < each.deadline <= 30.1 for each in trace)
