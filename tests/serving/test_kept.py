"""What was measured is kept beside a model: for this device, and harmless wherever it can't be read or written."""

from __future__ import annotations

import json
import os
import platform
import resource
from pathlib import Path

import pytest

from ortmesh.serving.cards import Card
from ortmesh.serving.kept import FILE, MOST_KEYS, Kept, cpu_name, key_of, read_all

CARD = Card(name="a", family="nlp", files={"model.onnx": "0" * 64})


def test_it_is_read_as_it_was_written_by_its_key_alone(tmp_path: Path) -> None:
    Kept(tmp_path, "one").update({"x": [1, 2]})
    Kept(tmp_path, "other").update({"x": 3})
    assert Kept(tmp_path, "one").read()["x"] == [1, 2]
    assert Kept(tmp_path, "third").read() == {}


def test_what_is_added_leaves_the_rest(tmp_path: Path) -> None:
    Kept(tmp_path, "one").update({"x": 1})
    Kept(tmp_path, "one").update({"y": 2})
    found = Kept(tmp_path, "one").read()
    assert (found["x"], found["y"]) == (1, 2)


def test_no_other_file_stays_behind(tmp_path: Path) -> None:
    for number in range(3):
        Kept(tmp_path, "one").update({"x": number})
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"one": 3}', "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
)
def test_a_broken_file_is_as_none_and_written_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert Kept(tmp_path, "one").read() == {}
    Kept(tmp_path, "one").update({"x": 1})
    assert Kept(tmp_path, "one").read()["x"] == 1


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"one": {"x": "y" * (2 << 20)}}))
    assert read_all(tmp_path) == {}


def test_of_many_machines_the_last_ones_are_remembered(tmp_path: Path) -> None:
    for number in range(MOST_KEYS + 5):
        Kept(tmp_path, str(number)).update({"x": number})
    found = read_all(tmp_path)
    assert len(found) == MOST_KEYS
    assert str(MOST_KEYS + 4) in found
    assert "0" not in found


def test_a_folder_that_can_not_be_written_to_keeps_nothing(tmp_path: Path) -> None:
    Kept(tmp_path / "gone", "one").update({"x": 1})
    assert Kept(tmp_path / "gone", "one").read() == {}


def test_the_file_can_be_read_by_other_users(tmp_path: Path) -> None:
    """Services of one store may run as different users."""
    Kept(tmp_path, "one").update({"x": 1})
    assert os.stat(tmp_path / FILE).st_mode & 0o777 == 0o644


def test_the_key_is_what_a_measurement_depends_on(tmp_path: Path) -> None:
    key = key_of(CARD, tmp_path, "CPUExecutionProvider", 2)
    assert key == key_of(CARD, tmp_path, "CPUExecutionProvider", 2)
    others = {
        key_of(CARD, tmp_path, "CPUExecutionProvider", 4),
        key_of(CARD, tmp_path, "CUDAExecutionProvider", 2),
        key_of(CARD.model_copy(update={"files": {"model.onnx": "1" * 64}}), tmp_path, "CPUExecutionProvider", 2),
    }
    assert len(others | {key}) == 4
    assert cpu_name() in key


@pytest.mark.parametrize(
    "runtime",
    [{"tf32": True}, {"tensorrt": {"fp16": True}}, {"cuda_graph": True}, {"providers": ["tensorrt", "cuda", "cpu"]}],
)
def test_on_a_gpu_it_depends_on_what_the_card_says_of_it_and_on_its_name(tmp_path: Path, runtime: object) -> None:
    def keyed(gpu: str, runtime: object) -> str:
        made = Card.model_validate({**CARD.model_dump(), "runtime": runtime})
        return key_of(made, tmp_path, "CUDAExecutionProvider", 2, gpu)

    keys = {keyed("NVIDIA H200", {}), keyed("NVIDIA H200", runtime), keyed("NVIDIA L4", runtime)}
    assert len(keys) == 3


def test_other_buckets_are_other_measurements(tmp_path: Path) -> None:
    keys = set()
    for rows in ([1, 2], [1, 4]):
        runtime = {"cuda_graph": True, "buckets": {"rows": rows}}
        made = Card.model_validate({**CARD.model_dump(), "runtime": runtime})
        keys.add(key_of(made, tmp_path, "CUDAExecutionProvider", 2, "NVIDIA H200"))
    assert len(keys) == 2


def test_processors_without_a_name_are_told_apart_by_what_they_say(tmp_path: Path) -> None:
    names = {cpu_name(tmp_path / "no such file")}
    for part in ("0xd0c", "0xd40"):
        facts = tmp_path / part
        facts.write_text(f"processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: {part}\n")
        names.add(cpu_name(facts))
    assert len(names) == 3
    assert all(name.startswith(platform.machine()) for name in names)


def test_a_full_disk_keeps_nothing_and_nothing_stays_behind(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    try:
        Kept(tmp_path, "one").update({"x": "y" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_without_a_sum_is_known_by_its_size(tmp_path: Path) -> None:
    card = CARD.model_copy(update={"files": {"model.onnx": None}})
    unknown = key_of(card, tmp_path, "CPUExecutionProvider", 2)
    (tmp_path / "model.onnx").write_bytes(b"123")
    assert key_of(card, tmp_path, "CPUExecutionProvider", 2) != unknown


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    assert read_all(tmp_path) == {}
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to("/dev/zero")
    assert read_all(tmp_path) == {}


def test_deep_brackets_are_as_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[" * 200_000)
    assert read_all(tmp_path) == {}
