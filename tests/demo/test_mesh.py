"""The demo's mesh: ready within bounds, a clear cause when not, and no process that stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from demo.failure import DemoFailed
from demo.mesh import Mesh
from ortmesh.client import Client
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.serving.store import Store

MODEL = "all-minilm-l6-v2"


@pytest.fixture
def small(store: Store, tmp_path: Path) -> Path:
    """A store with one model."""
    root = tmp_path / "store"
    shutil.copytree(store.root / MODEL, root / MODEL)
    return root


def test_it_answers_and_leaves_nothing_behind(small: Path) -> None:
    with Mesh(small) as mesh:
        mesh.wait([MODEL])
        with Client(mesh.address) as client:
            assert client.nlp.Embed(EmbedRequest(texts=["hello"])).model.name == MODEL
        assert len(mesh.processes()) >= 3  # up, the service, the gateway, Envoy
        mesh.stop()
        assert mesh.processes() == []


def test_a_model_that_fails_is_named_with_its_reason(small: Path) -> None:
    (small / MODEL / "1" / "model.onnx").write_bytes(b"not a graph")
    with Mesh(small) as mesh, pytest.raises(DemoFailed, match=rf"(?s){MODEL} failed: .+its last lines"):
        mesh.wait([MODEL])
    assert mesh.processes() == []


def test_a_mesh_that_ends_by_itself_shows_its_last_lines(tmp_path: Path) -> None:
    with Mesh(tmp_path / "empty") as mesh, pytest.raises(DemoFailed, match=r"(?s)ended by itself.+no models"):
        mesh.wait([MODEL])


def test_waiting_has_an_end(small: Path) -> None:
    with Mesh(small) as mesh, pytest.raises(DemoFailed, match=r"no-such-model: not ready after 0\.5 s"):
        mesh.wait(["no-such-model"], seconds=0.5)
    assert mesh.processes() == []
