"""`ortmesh pull`, `models add` and `models remove` where something goes wrong: exit code 1, and why in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ortmesh import catalogue
from ortmesh.serving.sources import fetching
from ortmesh.serving.store import Store
from tests.cli.conftest import Run
from tests.serving import graphs
from tests.serving.disks import Disk
from tests.serving.stand_in import MODEL, StandIn, card, serving, sum_of

SMALL = 600
"""KiB: a model of 1 MiB finds no room."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Where the catalogue's only model, `cat`, comes from. Only waiting is shortened."""
    monkeypatch.setattr(fetching, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        server.files["/model.onnx"] = MODEL
        only = card({"uri": f"{server.url}/model.onnx", "sha256": sum_of(MODEL)})
        monkeypatch.setattr(catalogue, "_by_name", lambda: {"cat": only})
        yield server


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.close()


def test_a_download_that_breaks_off_is_told_and_goes_on_the_next_time(web: StandIn, run: Run, tmp_path: Path) -> None:
    web.broken["/model.onnx"] = [200_000, 0, 0, 0, 0]
    result = run("pull", "--models", tmp_path)
    assert result.exit_code == 1
    assert "✗ cat@1: " in result.stderr
    assert "model.onnx cannot be reached" in result.stderr
    assert "0 of 1 models are in" in result.stdout
    assert "`ortmesh pull` goes on where it stopped" in result.stderr
    assert not Store(tmp_path).present("cat")
    result = run("pull", "--models", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "✓ cat@1" in result.stdout
    assert web.ranges("/model.onnx")[-1] == "bytes=200000-"


def test_bytes_that_are_not_those_of_the_card_are_not_installed(web: StandIn, run: Run, tmp_path: Path) -> None:
    web.files["/model.onnx"] = b"something else"
    result = run("pull", "--models", tmp_path)
    assert result.exit_code == 1
    assert f"is not what its card promises: expected sha256:{sum_of(MODEL)}" in result.stderr
    assert not Store(tmp_path).present("cat")


def test_a_full_disk_is_told(web: StandIn, run: Run, disk: Disk, tmp_path: Path) -> None:
    file, store = graphs.heavy(tmp_path, 2), Store(disk.folder / "models")
    disk.resize(SMALL)
    pulled = run("pull", "--models", store.root)
    added = run("models", "add", file, "--name", "heavy", "--family", "nlp", "--models", store.root)
    for result, prefix in ((pulled, "✗ cat@1: "), (added, "error: ")):
        assert result.exit_code == 1
        assert result.stderr.startswith(prefix)
        assert f"disk of {store.root}" in result.stderr
        assert "Traceback" not in result.output
    assert store.cards() == []
    disk.resize(32 * 1024)
    assert run("pull", "--models", store.root).exit_code == 0
    assert run("models", "add", file, "--name", "heavy", "--family", "nlp", "--models", store.root).exit_code == 0


def test_a_read_only_store_is_told_and_what_it_has_is_there(web: StandIn, run: Run, disk: Disk) -> None:
    store, file = Store(disk.folder / "models"), graphs.double(disk.folder / "mine")
    where = ("--models", store.root)
    assert run("models", "add", file, "--name", "double", "--family", "nlp", *where).exit_code == 0
    with disk.read_only():
        for command in (
            ("pull",),
            ("models", "add", file, "--name", "double", "--family", "nlp"),
            ("models", "remove", "double"),
        ):
            result = run(*command, *where)
            assert result.exit_code == 1
            assert str(store.root) in result.stderr
            assert "cannot be written" in result.stderr
            assert "Traceback" not in result.output
        assert "double@1" in run("models", "list", *where).stdout
    assert run("pull", *where).exit_code == 0
    with disk.read_only():
        assert "(was there)" in run("pull", *where).stdout


PULL = """
import json, sys
from ortmesh import catalogue
from ortmesh.cli.app import app
from ortmesh.serving.cards import Card
only = Card.model_validate(json.loads(sys.argv.pop()))
catalogue._by_name = lambda: {"cat": only}
app()
"""


def test_of_two_that_pull_the_same_model_one_downloads_and_the_other_waits(web: StandIn, tmp_path: Path) -> None:
    """Both end well, and the one that waits says for what."""
    web.held["/model.onnx"] = 100_000
    written = json.dumps(catalogue.cards()[0].model_dump(mode="json", exclude_unset=True))
    command = [sys.executable, "-c", PULL, "pull", "--models", str(tmp_path), written]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "160"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first = start()
    end = time.monotonic() + 60
    while not web.requests:
        assert time.monotonic() < end, "the first one does not begin"
        time.sleep(0.02)
    second = start()
    assert second.stdout is not None
    assert "another process is installing it" in second.stdout.readline()
    web.go_on.set()
    for process in (first, second):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert "✓ cat@1" in output
    assert len(web.ranges("/model.onnx")) == 1
