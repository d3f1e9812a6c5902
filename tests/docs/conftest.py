"""What the docs' commands meet: a mesh with the default models, and a folder with the files that they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from demo import inputs
from demo.mesh import Mesh
from ortmesh import catalogue
from ortmesh.serving.store import Store
from tests.nlp.tiny_llama import write_as_the_builder


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a reader of the docs tries things out."""

    folder: Path
    address: str
    """Of the mesh; the docs say 127.0.0.1:8080."""
    store: Path


@pytest.fixture(scope="session")
def desk(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A mesh on a store of its own, so that what the docs add reaches nobody else."""
    folder, own = tmp_path_factory.mktemp("desk"), tmp_path_factory.mktemp("store")
    write_files(folder)
    names = [card.name for card in catalogue.cards() if not card.optional]
    for name in names:
        (own / name).symlink_to(store.root / name)
    with Mesh(own) as mesh:
        mesh.wait(names)
        yield Desk(folder, mesh.address, own)


def write_files(folder: Path) -> None:
    """The files that the docs' commands name."""
    (folder / "cup.jpg").write_bytes(inputs.pictures()[0].encoded)
    (folder / "group.jpg").write_bytes(inputs.portraits()[0].encoded)
    (folder / "page.png").write_bytes(inputs.english_page().picture.encoded)
    (folder / "talk.wav").write_bytes(inputs.recordings()[0].encoded)
    for name, voice in zip(("known.wav", "caller.wav", "stranger.wav"), inputs.voices(), strict=True):
        (folder / name).write_bytes(voice.recording.encoded)
    onnx.save(churn(), folder / "churn.onnx")
    (folder / "my-llama").mkdir()
    write_as_the_builder(folder / "my-llama")


def churn() -> onnx.ModelProto:
    """Somebody's own model: `features` [batch, 4] to `probability` [batch, 1]."""
    weights = numpy_helper.from_array(np.ones((4, 1), np.float32), "weights")
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "churn",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 1])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
