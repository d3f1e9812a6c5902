"""The store: what is installed appears and disappears whole, for every process that looks."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from ortmesh.serving.cards import Card
from ortmesh.serving.faults import AlreadyInstalled, DiskFull, NotWritable, UnknownVersion, disk_errors
from ortmesh.serving.store import Store
from ortmesh.serving.watch import fingerprint


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def card(name: str = "cat", version: str = "1", **more: object) -> Card:
    return Card.model_validate({"name": name, "version": version, "family": "vision", **more})


def install(store: Store, name: str = "cat", version: str = "1", content: str = "x", *, replace: bool = False) -> Path:
    with store.staging() as folder:
        (folder / "model.onnx").write_text(content)
        return store.install(card(name, version, files={"model.onnx": None}), folder, replace=replace)


def hidden(store: Store, part: str) -> list[Path]:
    return list((store.root / part).iterdir())


def test_store_that_does_not_exist_is_empty_and_is_not_made_by_looking(store: Store) -> None:
    assert store.cards() == []
    assert store.default_of("cat") is None
    assert not store.root.exists()


def test_installed_version_is_found_with_its_card_and_files(store: Store) -> None:
    folder = install(store)
    assert folder == store.folder("cat", "1")
    assert [(card.key, path) for card, path in store.cards()] == [("cat@1", folder)]
    assert sorted(path.name for path in folder.iterdir()) == ["card.yaml", "model.onnx"]
    assert hidden(store, ".tmp") == []


def test_version_is_not_installed_twice_unless_it_is_to_be_replaced(store: Store) -> None:
    install(store, content="old")
    with pytest.raises(AlreadyInstalled, match="cat@1"):
        install(store, content="new")
    assert (store.folder("cat", "1") / "model.onnx").read_text() == "old"
    install(store, content="new", replace=True)
    assert (store.folder("cat", "1") / "model.onnx").read_text() == "new"
    assert hidden(store, ".tmp") == []


def test_card_that_promises_a_file_that_is_not_there_is_not_installed(store: Store) -> None:
    with store.staging() as folder, pytest.raises(ValueError, match=r"missing: model\.onnx"):
        store.install(card(files={"model.onnx": None}), folder)
    assert store.cards() == []


def test_what_fails_while_it_is_made_leaves_nothing(store: Store) -> None:
    with pytest.raises(FileNotFoundError), store.staging() as folder:
        folder.joinpath("half").write_text(folder.joinpath("missing").read_text())
    assert hidden(store, ".tmp") == []


def test_half_made_versions_of_killed_processes_are_swept_after_a_day(store: Store) -> None:
    with store.staging():
        pass
    old, young = store.root / ".tmp" / "old", store.root / ".tmp" / "young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    with store.staging():
        assert not old.exists()
        assert young.exists()


def test_broken_versions_are_reported_and_spare_their_neighbours(store: Store) -> None:
    good = install(store, "good")
    no_card = store.folder("empty", "1")
    no_card.mkdir(parents=True)
    torn = install(store, "torn")
    (torn / "card.yaml").write_text("name: [")
    robbed = install(store, "robbed")
    (robbed / "model.onnx").unlink()
    misplaced = install(store, "misplaced").rename(store.root / "misplaced" / "7")
    assert [path for _, path in store.cards()] == [good]
    assert store.problems.keys() == {no_card, torn, robbed, misplaced}
    assert "card.yaml" in store.problems[no_card]
    assert "model.onnx" in store.problems[robbed]
    assert "misplaced@1" in store.problems[misplaced]


def test_repaired_version_is_no_problem_any_more(store: Store) -> None:
    folder = install(store)
    content = (folder / "card.yaml").read_text()
    (folder / "card.yaml").write_text("family: none")
    store.cards()
    assert store.problems
    (folder / "card.yaml").write_text(content)
    assert len(store.cards()) == 1
    assert not store.problems


def test_newest_version_is_the_default_until_one_is_chosen(store: Store) -> None:
    for version in ("9", "10", "1.10", "1.9"):
        install(store, version=version)
    assert store.versions("cat") == ["1.9", "1.10", "9", "10"]
    assert store.default_of("cat") == "10"
    store.set_default("cat", "9")
    assert store.default_of("cat") == "9"
    assert Store(store.root).default_of("cat") == "9"


def test_default_that_is_removed_gives_way_to_the_newest(store: Store) -> None:
    for version in ("1", "2", "3"):
        install(store, version=version)
    store.set_default("cat", "1")
    store.remove("cat", "1")
    assert store.default_of("cat") == "3"
    assert store.defaults() == {}


def test_last_version_takes_its_models_folder_along(store: Store) -> None:
    install(store, version="1")
    install(store, version="2")
    store.remove("cat", "1")
    assert store.versions("cat") == ["2"]
    store.remove("cat", "2")
    assert not (store.root / "cat").exists()


@pytest.mark.parametrize("act", [Store.remove, Store.set_default])
def test_unknown_version_is_named_with_those_that_are_there(store: Store, act: object) -> None:
    install(store, version="2")
    with pytest.raises(UnknownVersion, match=r"cat@1 .* \(versions there: 2\)"):
        act(store, "cat", "1")  # type: ignore[operator]


def test_damaged_defaults_are_reported_and_count_as_none(store: Store) -> None:
    install(store)
    (store.root / "defaults.json").write_text("[1]")
    assert store.default_of("cat") == "1"
    store.cards()
    assert store.root / "defaults.json" in store.problems
    store.set_default("cat", "1")
    store.cards()
    assert not store.problems


def test_full_disk_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=str(tmp_path)), disk_errors(tmp_path), open("/dev/full", "wb", 0) as file:
        file.write(b"x")


def test_store_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotWritable, match="file"), Store(tmp_path / "file" / "models").staging():
        pass
    with pytest.raises(NotWritable, match="read-only"), disk_errors(tmp_path):
        raise OSError(errno.EROFS, "read-only")


def test_lock_keeps_another_holder_out_and_tells_whoever_waits(store: Store) -> None:
    """File locks hold between threads of one process too, so that one process shows what two would do."""
    order: list[str] = []

    async def second(waits: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def hold() -> None:
            with store.lock("cat@1", lambda: loop.call_soon_threadsafe(waits.set)):  # type: ignore[arg-type]
                order.append("second")

        await asyncio.to_thread(hold)

    async def both() -> None:
        waits = asyncio.Event()
        with store.lock("cat@1"):
            task = asyncio.create_task(second(waits))
            await waits.wait()
            order.append("first")
        await task

    asyncio.run(both())
    assert order == ["first", "second"]


async def next_change(changes: AsyncIterator[None]) -> None:
    async with asyncio.timeout(60):
        await anext(changes)


async def test_watcher_hears_of_versions_that_come_change_and_go(store: Store) -> None:
    changes = store.watch()
    install(store)  # before anyone listens: nothing may be lost
    await next_change(changes)
    waiting = asyncio.create_task(next_change(changes))
    await asyncio.to_thread(install, store, version="2")
    await waiting
    waiting = asyncio.create_task(next_change(changes))
    await asyncio.to_thread(store.set_default, "cat", "1")
    await waiting
    waiting = asyncio.create_task(next_change(changes))
    await asyncio.to_thread(store.remove, "cat", "2")
    await waiting


async def test_watcher_is_not_woken_by_what_is_not_installed_yet(store: Store) -> None:
    """Half-made versions, locks and downloads come first; what wakes the watcher is the version after them."""
    changes = store.watch()
    waiting = asyncio.create_task(next_change(changes))
    await asyncio.sleep(0)
    with store.staging() as folder, store.lock("cat@1"):
        (folder / "model.onnx").write_text("x")
        (store.cache / "pypi").mkdir(parents=True)
        (store.cache / "pypi" / "archive").write_text("x")
    done, _ = await asyncio.wait([waiting], timeout=1.5)
    assert not done
    await asyncio.to_thread(install, store)
    await waiting


@pytest.mark.parametrize(
    "line",
    [
        "precision: !!bool foo",
        "precision: !!int ''",
        "precision: !!timestamp foo",
        "preprocessing: " + "[" * 3000,
        'description: "\\ud800"',
        'preprocessing: {a: !!binary "/w=="}',
        "preprocessing: &a {a: *a}",
        "preprocessing: {a: &a [1,1,1,1,1,1,1,1,1]"
        + "".join(f", {b}: &{b} [{f'*{a},' * 9}]" for a, b in pairwise("abcdefghijk"))
        + "}",
        "labels: ../../../etc/passwd",
        "graph: /etc/passwd",
        "description: " + "x" * 2_000_000,
    ],
)
def test_a_bad_card_is_a_problem_of_its_own(tmp_path: Path, line: str) -> None:
    """Whatever a card holds, the other models are served."""
    store = Store(tmp_path)
    for name in ("bad", "good"):
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        (folder / "card.yaml").write_text(f"name: {name}\nfamily: nlp\n" + (line if name == "bad" else ""))
    assert [card.name for card, _ in store.cards()] == ["good"]
    assert list(store.problems) == [tmp_path / "bad" / "1"]


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    install(store, "good")
    for name in ("defaults.json", "bad/1/card.yaml", "robbed/1/model.onnx"):
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(store.root / name)
    assert [each.name for each, _ in store.cards()] == ["good"]
    assert fingerprint(store.root)


def test_what_is_installed_can_be_read_by_all_and_written_over_by_nobody(store: Store) -> None:
    """But its card can be edited, and the version removed."""
    folder = install(store)
    assert oct((folder / "model.onnx").stat().st_mode)[-3:] == "444"
    assert oct((folder / "card.yaml").stat().st_mode)[-3:] == "644"
    store.remove("cat", "1")
    assert hidden(store, ".tmp") == []


def test_links_in_a_circle_and_deep_defaults_are_lived_with(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "defaults.json").write_text("[" * 100_000)
    assert store.cards() == []
    assert tmp_path / "defaults.json" in store.problems
    assert fingerprint(tmp_path)


def test_a_file_of_defaults_that_is_being_written_moves_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path)
    written = tmp_path / "defaults.json"
    written.write_text('{"double": "1"}')
    assert store.defaults() == {"double": "1"}
    written.write_text('{"double":')
    assert store.defaults() == {"double": "1"}
    assert written in store.problems
    written.unlink()
    assert store.defaults() == {}
