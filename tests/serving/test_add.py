"""Adding a user's ONNX file: what lands in the store is whole, described and loadable."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ortmesh.serving.add import add
from ortmesh.serving.cards import read_card, write_card
from ortmesh.serving.digests import sha256_of
from ortmesh.serving.faults import AlreadyInstalled, GraphRefused, StoreError
from ortmesh.serving.store import Store
from tests.serving import graphs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_added_file_is_served_with_a_card_that_a_person_can_edit(store: Store, tmp_path: Path) -> None:
    file = graphs.double(tmp_path / "mine")
    card = add(file, "double", "nlp", store)
    folder = store.folder("double", "1")
    assert store.cards() == [(card, folder)]
    assert card.files == {"model.onnx": sha256_of(file)}
    assert (folder / "card.yaml").read_text() == (
        "name: double\n"
        "version: '1'\n"
        "family: nlp\n"
        "tasks: []\n"
        "description: A model with ONNX opset 17.\n"
        "files:\n"
        f"  model.onnx: {sha256_of(file)}\n"
        "graph: model.onnx\n"
        "inputs:\n"
        "  x:\n"
        "    batch_axis: 0\n"
        "outputs:\n"
        "  y:\n"
        "    batch_axis: 0\n"
        "precision: f32\n"
        "license:\n"
        "  weights: unknown\n"
    )
    write_card(read_card(folder / "card.yaml"), tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == (folder / "card.yaml").read_text()
    assert file.exists()


def test_version_is_the_next_free_number_or_the_one_that_is_wanted(store: Store, tmp_path: Path) -> None:
    file = graphs.double(tmp_path / "mine")
    versions = [add(file, "double", "nlp", store, version).version for version in (None, None, "9", "beta", None)]
    assert versions == ["1", "2", "9", "beta", "10"]
    with pytest.raises(AlreadyInstalled, match="double@9"):
        add(file, "double", "nlp", store, "9")


def test_name_belongs_to_one_family(store: Store, tmp_path: Path) -> None:
    file = graphs.double(tmp_path / "mine")
    add(file, "double", "nlp", store)
    with pytest.raises(StoreError, match="family nlp already"):
        add(file, "double", "vision", store)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "../evil"}, r'name: found "\.\./evil"'),
        ({"name": "Two Words"}, 'name: found "Two Words"'),
        ({"version": "../1"}, r'version: found "\.\./1"'),
        ({"family": "smell"}, "family: found \"smell\", expected 'vision', 'speech' or 'nlp'"),
    ],
)
def test_what_cannot_be_a_name_is_said(arguments: Mapping[str, str], reason: str, store: Store, tmp_path: Path) -> None:
    file = graphs.double(tmp_path / "mine")
    wanted = {"name": "double", "family": "nlp", **arguments}
    with pytest.raises(StoreError, match=reason):
        add(file, store=store, **wanted)
    assert store.cards() == []


def split(folder: Path) -> Path:
    """A model whose weights lie in a file beside it."""
    path = graphs.double(folder)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="parts.bin", size_threshold=0)
    return path


def run(path: Path, **feeds: object) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def test_weights_beside_the_file_travel_along(store: Store, tmp_path: Path) -> None:
    card = add(split(tmp_path / "mine"), "double", "nlp", store)
    assert sorted(card.files) == ["model.onnx", "parts.bin"]
    (answer,) = run(store.folder("double", "1") / "model.onnx", x=np.ones((1, 4), np.float32))
    assert answer.tolist() == [[2, 2, 2, 2]]


def test_links_of_a_hubs_cache_become_files(store: Store, tmp_path: Path) -> None:
    """Hugging Face's cache holds links into a folder of blobs, where ONNX Runtime would not look for weights."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("model.onnx", "parts.bin"):
        os.symlink(split(blobs).with_name(name), snapshot / name)
    add(snapshot / "model.onnx", "double", "nlp", store)
    assert not any(path.is_symlink() for path in store.folder("double", "1").iterdir())
    assert math.isclose(run(store.folder("double", "1") / "model.onnx", x=np.ones((1, 4), np.float32))[0][0, 0], 2)


@pytest.mark.parametrize("name", ["card.yaml", "model.onnx"])
def test_weights_under_a_name_of_the_stores_own_are_refused(name: str, store: Store, tmp_path: Path) -> None:
    path = graphs.double(tmp_path / "mine").rename(tmp_path / "mine" / "graph.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location=name, size_threshold=0)
    with pytest.raises(GraphRefused, match=name):
        add(path, "double", "nlp", store)


def test_file_that_onnx_runtime_does_not_load_leaves_nothing(store: Store, tmp_path: Path) -> None:
    path = graphs.double(tmp_path / "mine")
    model = onnx.load(path)
    model.graph.node[0].op_type = "Purr"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphRefused, match="Purr"):
        add(path, "double", "nlp", store)
    assert store.cards() == []
    assert list((store.root / ".tmp").iterdir()) == []


def test_model_without_a_batch_axis_runs_one_item_at_a_time(store: Store, tmp_path: Path) -> None:
    path = graphs.double(tmp_path / "mine")
    model = onnx.load(path)
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 1
    path.write_bytes(model.SerializeToString())
    assert add(path, "double", "nlp", store).batching.max_rows == 1
    assert "batching:\n  max_rows: 1\n" in (store.folder("double", "1") / "card.yaml").read_text()
