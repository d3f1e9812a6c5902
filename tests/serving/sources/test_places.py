"""This machine, hubs and buckets."""

from __future__ import annotations

import sys
from pathlib import Path

import fsspec
import pytest

from ortmesh.serving.faults import (
    DriverMissing,
    SourceMissing,
)
from ortmesh.serving.fetch import Step, pull
from ortmesh.serving.sources import bucket, fetching
from ortmesh.serving.store import Store
from tests.serving.stand_in import MODEL, StandIn, card, content, sum_of, zipped


@pytest.mark.parametrize("kind", ["file", "folder", "archive"])
def test_files_of_this_machine_are_copied(kind: str, store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "my models"
    mine.mkdir()
    (mine / "model.onnx").write_bytes(MODEL)
    (mine / "w.zip").write_bytes(zipped({"model.onnx": MODEL}))
    files = {"model.onnx": sum_of(MODEL)}
    uris = {"file": (mine / "model.onnx").as_uri(), "folder": f"file:{mine}", "archive": f"file:{mine}/w.zip"}
    assert content(pull(card({"uri": uris[kind], "files": files}), store)) == {"model.onnx": MODEL}
    assert (mine / "model.onnx").exists()


@pytest.mark.parametrize("uri", ["file:/nowhere/model.onnx", "file:///nowhere/"])
def test_file_that_is_not_on_this_machine_is_missing(uri: str, store: Store) -> None:
    with pytest.raises(SourceMissing, match="/nowhere"):
        pull(card({"uri": uri}), store)


def test_hub_files_come_from_the_endpoint_of_the_environment(web: StandIn, store: Store) -> None:
    web.files["/org/cats/resolve/v2/onnx/model.onnx"] = MODEL
    steps: list[Step] = []
    source = {"uri": "hf:org/cats@v2", "files": {"onnx/model.onnx": sum_of(MODEL)}}
    assert content(pull(card(source), store, steps.append)) == {"model.onnx": MODEL}
    assert Step("downloading", "onnx/model.onnx", len(MODEL), len(MODEL)) in steps


def test_hub_file_that_does_not_exist_is_missing(web: StandIn, store: Store) -> None:
    with pytest.raises(SourceMissing, match=r"hf:org/cats has no model\.onnx"):
        pull(card({"uri": "hf:org/cats", "files": {"model.onnx": sum_of(MODEL)}}), store)


def test_missing_hub_client_is_named(web: StandIn, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DriverMissing, match="pip install huggingface_hub"):
        pull(card({"uri": "hf:org/cats", "files": {"model.onnx": sum_of(MODEL)}}), store)


def test_missing_bucket_driver_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DriverMissing, match="pip install s3fs"):
        pull(card({"uri": "s3://bucket/model.onnx"}), store)


class Interrupted(Exception):
    """A person presses Ctrl-C."""


def test_object_of_a_bucket_goes_on_where_an_earlier_copy_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On fsspec's file system in memory: all that buckets share is fsspec's interface."""
    monkeypatch.setattr(bucket, "CHUNK_BYTES", 300_000)
    disk = fsspec.filesystem("memory")
    disk.pipe("/cats/model.onnx", MODEL)
    target = tmp_path / "model.onnx"
    seen: list[int] = []

    def interrupt(step: Step) -> None:
        if step.done:
            raise Interrupted

    with pytest.raises(Interrupted):
        bucket.copy(disk, "memory://cats/model.onnx", target, None, interrupt)
    bucket.copy(disk, "memory://cats/model.onnx", target, None, lambda step: seen.append(step.done))
    assert seen == [300_000, 600_000, 900_000, len(MODEL)]
    assert target.read_bytes() == MODEL


def test_object_that_is_not_in_the_bucket_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="memory://cats/none"):
        bucket.copy(fsspec.filesystem("memory"), "memory://cats/none", tmp_path / "none", None, fetching.silent)
