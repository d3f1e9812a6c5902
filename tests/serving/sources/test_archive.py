"""Archives are not trusted: only the listed members are taken, and only into their folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ortmesh.serving.cards import Card
from ortmesh.serving.faults import (
    BadArchive,
    SourceMissing,
)
from ortmesh.serving.fetch import pull
from ortmesh.serving.store import Store
from tests.serving.stand_in import MODEL, card, content, sum_of, tarred, zipped


def archive_of(tmp_path: Path, packed: bytes, *members: str, name: str = "w.zip") -> Card:
    (tmp_path / name).write_bytes(packed)
    return card({"uri": f"file:{tmp_path}/{name}", "files": {member: sum_of(MODEL) for member in members}})


@pytest.mark.parametrize("member", ["../model.onnx", "/model.onnx", "a/../../model.onnx"])
def test_member_that_would_leave_the_folder_is_refused_in_the_card(member: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must stay inside"):
        archive_of(tmp_path, zipped({member: MODEL}), member)


def test_member_with_a_hostile_name_is_never_written(store: Store, tmp_path: Path) -> None:
    packed = zipped({"../../../escaped": b"x", "model.onnx": MODEL})
    assert content(pull(archive_of(tmp_path, packed, "model.onnx"), store)) == {"model.onnx": MODEL}
    assert not list(tmp_path.rglob("escaped"))


def test_link_in_a_tarball_is_not_followed(store: Store, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("model.onnx")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(SourceMissing, match=r"w\.tar has no model\.onnx"):
        pull(archive_of(tmp_path, buffer.getvalue(), "model.onnx", name="w.tar"), store)


def test_member_that_the_archive_lacks_is_missing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"w\.zip has no a/other"):
        pull(archive_of(tmp_path, zipped({"a/model.onnx": MODEL}), "a/other"), store)


@pytest.mark.parametrize(("name", "packed"), [("w.zip", zipped({"m": MODEL})), ("w.tgz", tarred({"m": MODEL}))])
def test_damaged_archive_is_told_as_such(name: str, packed: bytes, store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match=name):
        pull(archive_of(tmp_path, packed[: len(packed) // 2], "m", name=name), store)
