"""What `ortmesh models show` says of batches: the table of costs, its marks, its width, and why there is none."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import onnx
import pytest
from onnx import TensorProto, helper
from rich.cells import cell_len
from rich.console import Console

from ortmesh import catalogue
from ortmesh.cli.costs import columns, layout, milliseconds, print_batching, speed
from ortmesh.client import Client
from ortmesh.config import StoreSettings
from ortmesh.models.v1.models_pb2 import MODEL_STATE_READY, Batching, GetModelRequest, Model
from ortmesh.serving.batcher import Grid
from ortmesh.serving.fetch import pull
from ortmesh.serving.kept import FILE, Kept
from ortmesh.serving.store import Store
from tests.cli.conftest import Mesh, Run, model

MINILM = "all-minilm-l6-v2"
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
PADDED = '{"inputs": {"input_ids": {"pad_axis": 1}}}'


def by_cost(*sizes: int, best: int = 4) -> Batching:
    """A device that likes `best` rows."""
    made = Batching(policy="by cost", executors=2, threads=1, speed=1.0)
    for size in sizes:
        for rows in ROWS:
            seconds = (rows + abs(rows - best) + 0.5) * max(size, 1) / 1000
            made.costs.add(size=size, rows=rows, seconds=seconds, measured=True)
        made.choices.add(size=size, rows=best, items_per_second=1000 * best / (best + 0.5) / max(size, 1))
    return made


def shown(batching: Batching, width: int = 80, card: str = PADDED) -> list[str]:
    """The lines that a terminal so wide gets."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    print_batching(Model(name="m", family="nlp", card_json=card, batching=batching), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def row(lines: list[str], first: str) -> list[str]:
    """The words of the line that begins with one."""
    (found,) = [line.split() for line in lines if line.split()[:1] == [first]]
    return found


def test_costs_are_a_table_of_sizes_and_rows() -> None:
    lines = shown(by_cost(8, 128), width=140)
    assert row(lines, "TOKENS") == ["TOKENS", *map(str, ROWS), "BEST", "BATCH", "ITEMS/S"]
    assert row(lines, "8")[1:4] == ["36.0", "36.0", "36.0"]
    assert row(lines, "128")[-2:] == ["4", "6.94"]


def test_the_best_batch_of_each_size_is_marked() -> None:
    lines = shown(by_cost(8, 128), width=140)
    head = row(lines, "TOKENS")
    for size in ("8", "128"):
        marked = [index for index, cell in enumerate(row(lines, size)) if cell.endswith("*")]
        assert [head[index] for index in marked] == ["4"]


def test_a_best_batch_that_was_not_measured_itself_is_told_without_a_mark() -> None:
    batching = by_cost(8)
    batching.choices[0].rows = 5
    assert not any(cell.endswith("*") for cell in row(shown(batching), "8"))
    assert row(shown(batching), "8")[-2] == "5"


def test_items_that_all_cost_the_same_are_one_line() -> None:
    lines = shown(by_cost(0), card="")
    assert row(lines, "any")[1:3] == ["4.50", "4.50"]
    assert row(lines, "SIZE")


@pytest.mark.parametrize("width", range(60, 100))
def test_no_digit_of_a_rate_is_cut(width: int) -> None:
    batching = by_cost(8, 64, best=32)
    for choice in batching.choices:
        choice.items_per_second = 10_450_688
    assert row(shown(batching, width=width), "8")[-1] == "10,450,688"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_line_of_the_table_is_wider_than_the_terminal(width: int) -> None:
    lines = shown(by_cost(8, 64, 512, best=32), width=width)
    assert all(cell_len(line.rstrip()) <= width for line in lines if not line.startswith(("batches", "speed")))
    head = row(lines, "TOKENS")
    assert {"1", "32"} <= set(head)
    hidden = [line for line in lines if line.startswith("known too")]
    assert bool(hidden) == (len(head) < len(ROWS) + 4)


def test_a_size_without_a_cell_leaves_its_place_empty() -> None:
    """Large items are not measured in large batches."""
    batching = by_cost(8)
    batching.costs.add(size=512, rows=1, seconds=1.234, measured=True)
    assert row(shown(batching, width=140), "512") == ["512", "1,234"]


def test_what_follows_from_other_batches_is_told_from_what_was_measured() -> None:
    batching = by_cost(8)
    batching.costs.add(size=512, rows=1, seconds=1.234)
    assert row(shown(batching, width=140), "512") == ["512", "~1,234"]


def test_sizes_that_are_no_lengths_say_what_they_are() -> None:
    assert any(line.startswith("size: elements of a row") for line in shown(by_cost(4, 16), card="", width=140))
    assert not any(line.startswith("size:") for line in [*shown(by_cost(0), card=""), *shown(by_cost(8))])


def test_few_columns_are_one_row_and_the_best_ones() -> None:
    assert columns(ROWS, [32, 6], 3) == [1, 6, 32]
    assert columns(ROWS, [32, 6], 5) == [1, 2, 4, 6, 32]
    assert columns(ROWS, [5], 99) == list(ROWS)
    assert columns((3,), [], 1) == [3]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0000123, "0.012"), (0.001, "1.00"), (0.01, "10.0"), (0.1, "100"), (1.23, "1,230")]
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


def test_the_policy_the_layout_and_the_speed_are_said_in_words() -> None:
    batching = by_cost(8)
    batching.speed = 1.5
    text = "\n".join(shown(batching, width=140))
    assert "batches  by cost: the batch worth most for its time" in text
    assert "layout   2 executors side by side on 1 thread each" in text
    assert "speed    runs take 1.5 × what was measured at first" in text
    assert layout(1, 2) == "1 executor on 2 threads"
    assert layout(1, 0) == "1 executor on a device"
    assert layout(2, 0) == "2 executors side by side on a device"
    assert speed(1.02) == "runs take what was measured at first"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("in order of arrival", "what batches cost is not known yet"),
        ("one at a time", "one at a time"),
        ("a later one", "a later one"),
    ],
)
def test_a_model_without_costs_says_why(policy: str, words: str) -> None:
    lines = shown(Batching(policy=policy, executors=1, threads=2))
    assert words in lines[1]
    assert lines[2] == "layout   1 executor on 2 threads"
    assert len(lines) == 3


def test_a_program_is_not_said_to_be_measured_later() -> None:
    lines = shown(Batching(policy="in order of arrival", executors=1, threads=2), card='{"runtime": {"program": "x"}}')
    assert lines[1] == (
        "batches  in order of arrival: what a batch of a model of several steps costs depends on what is in it"
    )


def test_a_model_that_is_not_loaded_says_nothing_of_batches() -> None:
    assert shown(Batching()) == []


def test_show_ends_with_what_batches_cost(mesh: Mesh, run: Run) -> None:
    answer = model("minilm")
    answer.card_json = PADDED
    answer.batching.CopyFrom(by_cost(8, 128))
    mesh.answers["GetModel"] = answer
    lines = run("models", "show", "minilm").stdout.splitlines()
    assert row(lines, "TOKENS")[-1] == "ITEMS/S"
    assert row(lines, "128")[-2] == "4"


def test_without_a_mesh_the_store_tells_what_a_service_measured(run: Run, store: Store) -> None:
    """Of the service that wrote last."""
    grid = Grid((1, 2, 4), (8, 64), {(rows, size): rows * size / 4000 for rows in (1, 2, 4) for size in (8, 64)})
    folder = store.folder("double", "1")
    Kept(folder, "CPUExecutionProvider, a machine, graph 1").update({"grid": {"sizes": [8]}, "measured": [[1, 8]]})
    Kept(folder, "CPUExecutionProvider, an old machine, graph 1").update({"grid": grid.to_json(), "measured": [[1, 8]]})
    Kept(folder, "CPUExecutionProvider, this machine, graph 1").update(
        {"grid": grid.to_json(), "measured": [[1, 8], [4, 64]]}
    )
    Kept(folder, "CPUExecutionProvider, a later one, graph 1").update({"unknown": 1})
    lines = run("models", "show", "double", "--models", store.root).stdout.splitlines()
    assert "measured on  CPUExecutionProvider, this machine" in lines
    assert row(lines, "64")[:3] == ["64", "~16.0*", "~32.0"]
    assert not any(line.startswith(("batches", "layout", "speed")) for line in lines)
    kept = json.loads(run("models", "show", "double", "--models", store.root, "--json").stdout)
    assert len(kept["batching"]["costs"]) == 6


@pytest.mark.parametrize("written", ["", "[]", '{"a": 1}', '{"a": {"grid": {"sizes": []}, "at": "x"}}'])
def test_what_is_kept_and_cannot_be_read_is_as_if_nothing_were(written: str, run: Run, store: Store) -> None:
    (store.folder("double", "1") / ".costs.json").write_text(written)
    result = run("models", "show", "double", "--models", store.root)
    assert result.exit_code == 0, result.output
    assert "ITEMS/S" not in result.stdout


def test_a_running_service_shows_what_its_batches_cost(service: str, run: Run) -> None:
    """Measured at the load: by sizes in tokens, each with its best batch."""
    lines = run("models", "show", MINILM, "--address", service).stdout.splitlines()
    assert "batches  by cost" in "\n".join(lines)
    assert any(line.startswith("layout   ") and "thread" in line for line in lines)
    head = row(lines, "TOKENS")
    assert head[1] == "1"
    smallest = row(lines, "8")
    assert float(smallest[1].rstrip("*")) > 0
    assert int(smallest[-2]) >= 1


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The language service with MiniLM alone, in a store of its own: its costs are kept there."""
    shared = Store(StoreSettings().models)
    pull(catalogue.card(MINILM), shared)
    own = tmp_path / "own" / MINILM / "1"
    own.mkdir(parents=True)
    for file in shared.folder(MINILM, "1").iterdir():
        if file.name != FILE:
            (own / file.name).symlink_to(file)
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as folder:
        address = f"unix:{folder}/s"
        command = [sys.executable, "-m", "ortmesh_nlp", "--listen", address, "--models", str(tmp_path / "own")]
        process = subprocess.Popen(command)
        try:
            wait_until_ready(address, MINILM)
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def wait_until_ready(address: str, name: str, seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    with Client(address, timeout_seconds=30) as mesh:
        while True:
            with contextlib.suppress(grpc.RpcError):
                if mesh.models.GetModel(GetModelRequest(model=name)).state == MODEL_STATE_READY:
                    return
            assert time.monotonic() < deadline, f"{name} is not ready"
            time.sleep(0.05)


@pytest.fixture
def store(run: Run, tmp_path: Path) -> Store:
    """A store with a model of one's own, double@1."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    root = tmp_path / "models"
    run("models", "add", tmp_path / "a.onnx", "--name", "double", "--family", "nlp", "--models", root)
    return Store(root)
