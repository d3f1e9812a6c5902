"""The file that Silero's package has, as a user would serve it: its batch axes are not the first, `sr` has none."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ortmesh import catalogue
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.fetch import pull
from ortmesh.serving.loaded import Loaded, load, rows_of
from ortmesh.serving.store import Store
from ortmesh.serving.types import Item, NoMeter, Tensors
from ortmesh.serving.warmup import Capture, Mode

GRAPH = "silero_vad.onnx"
SUM = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
RATE = np.array(16_000)


@pytest.fixture(scope="module")
def card() -> Card:
    """What a person writes who adds the package's file."""
    (source,) = catalogue.card("silero-vad").sources
    return Card.model_validate(
        {
            "name": "silero",
            "family": "speech",
            "sources": [{"uri": source.uri, "sha256": source.sha256, "files": {f"silero_vad/data/{GRAPH}": SUM}}],
            "files": {GRAPH: SUM},
            "graph": GRAPH,
            "inputs": {
                "input": {"sample_shape": [1, 576], "sample_range": [-1, 1]},
                "state": {"batch_axis": 1},
                "sr": {"batch_axis": None, "shared": True, "sample_range": [16_000, 16_001]},
            },
            "outputs": {"output": {}, "stateN": {"batch_axis": 1}},
        }
    )


@pytest.fixture(scope="module")
def folder(card: Card, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, out of the archive that the catalogue's model was made from."""
    own = Store(tmp_path_factory.mktemp("store"))
    store.cache.mkdir(exist_ok=True)
    own.cache.symlink_to(store.cache)
    return pull(card, own)


@pytest.fixture(scope="module")
def loaded(card: Card, folder: Path) -> Loaded:
    return load(card, folder, 1, NoMeter())


def run(loaded: Loaded, *many: Tensors) -> list[Tensors]:
    """The outputs of items that are run as one batch."""
    captures = [Capture() for _ in many]
    items = [
        Item(each, answer=capture, owner=capture, deadline=math.inf, rows=rows_of(each, loaded.signature))
        for each, capture in zip(many, captures, strict=True)
    ]
    (executor,) = loaded.executors
    assert isinstance(executor, SessionExecutor)
    executor.run(items)
    assert [capture.error for capture in captures] == [None] * len(many)
    return [capture.outputs for capture in captures if capture.outputs is not None]


def step(seed: int, rows: int = 1) -> Tensors:
    random = np.random.default_rng(seed)
    sound = random.uniform(-0.5, 0.5, (rows, 576)).astype(np.float32)
    return {"input": sound, "state": random.standard_normal((2, rows, 128)).astype(np.float32), "sr": RATE}


def test_warm_up_finds_that_steps_may_share_a_batch(loaded: Loaded) -> None:
    assert loaded.finding.mode is Mode.TOGETHER, loaded.finding.reason


@pytest.mark.parametrize("rows", [(1, 1, 1), (2, 1, 3)])
def test_steps_of_several_recordings_in_one_batch_are_as_alone(loaded: Loaded, rows: tuple[int, ...]) -> None:
    items = [step(seed, each) for seed, each in enumerate(rows)]
    for item, outputs in zip(items, run(loaded, *items), strict=True):
        (alone,) = run(loaded, item)
        assert outputs["stateN"].shape == item["state"].shape
        for name, array in outputs.items():
            np.testing.assert_allclose(array, alone[name], atol=1e-5, err_msg=name)
        assert np.abs(outputs["stateN"] - item["state"]).max() > 0.1


def test_a_step_at_another_rate_spoils_nobodys_batch(loaded: Loaded) -> None:
    """What is shared must be equal: where it is not, items run one by one."""
    narrow = {**step(7), "input": step(7)["input"][:, :288], "sr": np.array(8_000)}
    one, other = run(loaded, step(1), narrow)
    np.testing.assert_array_equal(one["output"], run(loaded, step(1))[0]["output"])
    np.testing.assert_array_equal(other["output"], run(loaded, narrow)[0]["output"])


def test_the_catalogues_graph_gives_what_the_packages_gives_step_by_step(loaded: Loaded, store: Store) -> None:
    """Many frames of several recordings at once, and block by block, against one frame after the other."""
    made = catalogue.card("silero-vad")
    ours = load(made, store.folder(made.name, made.version), 1, NoMeter())
    assert ours.finding.mode is Mode.TOGETHER, ours.finding.reason
    random = np.random.default_rng(0)
    sounds = random.uniform(-0.5, 0.5, (3, 64 + 40 * 512)).astype(np.float32)
    sounds *= np.abs(np.sin(np.arange(sounds.shape[1]) / 3000)).astype(np.float32)
    state: Tensors | None = None
    expected = []
    for at in range(0, 40 * 512, 512):
        before = np.zeros((2, 3, 128), np.float32) if state is None else state["stateN"]
        (state,) = run(loaded, {"input": sounds[:, at : at + 576], "state": before, "sr": RATE})
        expected.append(state["output"][:, 0])
    nothing = np.zeros((2, 1, 128), np.float32)
    first = run(ours, *({"samples": sounds[[row], : 64 + 10 * 512], "state": nothing} for row in range(3)))
    then = run(
        ours,
        *({"samples": sounds[[row], 10 * 512 :], "state": outputs["next_state"]} for row, outputs in enumerate(first)),
    )
    got = [np.concatenate([a["speech"][0], b["speech"][0]]) for a, b in zip(first, then, strict=True)]
    np.testing.assert_allclose(got, np.transpose(expected), atol=1e-5)
    assert state is not None
    np.testing.assert_allclose(np.concatenate([b["next_state"] for b in then], axis=1), state["stateN"], atol=1e-4)
