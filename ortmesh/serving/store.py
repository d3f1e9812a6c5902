"""Store: the folder of models, one sub-folder a version, shared by every process of a mesh. Stage: store.

    <root>/<name>/<version>/card.yaml and the model's files
    <root>/defaults.json        name -> version that a name without "@version" picks
    <root>/.tmp .locks .cache   half-made versions, locks between processes, downloaded archives

A version appears, is replaced and disappears by one rename, so that no reader ever sees half of it.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ortmesh.serving.cards import CARD_FILE, MAX_CARD_BYTES, NAME, VERSION, Card, read_card, write_card
from ortmesh.serving.digests import sync, sync_tree
from ortmesh.serving.faults import AlreadyInstalled, UnknownVersion, disk_errors
from ortmesh.serving.publish import exchange, publish
from ortmesh.serving.watch import watch_tree

DEFAULTS_FILE = "defaults.json"
# Half-made versions of processes that were killed are removed after this time.
ABANDONED_SECONDS = 24 * 3600.0


Identity = tuple[tuple[str, int, int, int], ...]
"""(path, inode, size, time) of a version's card and files: another one when any of them was replaced or edited."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A usable version."""

    card: Card
    folder: Path
    identity: Identity
    """As it was before the card was read: what changes meanwhile shows the next time."""


class Store:
    """The models that are installed at `root`, which is made when something is first written there."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._last_defaults: dict[str, str] = {}
        self.problems: dict[Path, str] = {}
        """What the last `cards()` could not use, and why. Never fatal: the other models are served."""

    def folder(self, name: str, version: str) -> Path:
        """Where a version lies, or would lie."""
        return self.root / name / version

    @property
    def cache(self) -> Path:
        """Where archives are kept that several models, or a later pull, need again."""
        return self.root / ".cache"

    # What is there

    def cards(self) -> list[tuple[Card, Path]]:
        """Every usable version with its folder, ordered by name and version; the others go to `problems`."""
        return [(found.card, found.folder) for found in self._all()]

    def installed(self) -> list[Installed]:
        """As `cards`, for who follows the store. OSError when there is no store, e.g. since its disk is gone."""
        self.root.stat()
        return self._all()

    def versions(self, name: str) -> list[str]:
        """The usable versions of a model, oldest first."""
        return [found.card.version for found in self._usable(self.root / name)]

    def _all(self) -> list[Installed]:
        self.problems = {}
        self.defaults()
        return [found for model in _folders(self.root) for found in self._usable(model)]

    def _usable(self, model: Path) -> list[Installed]:
        found: list[Installed] = []
        try:
            folders = list(_folders(model))
        except OSError as error:  # another user's folder must not take the others' models away
            self.problems[model] = str(error)
            return []
        for folder in folders:
            try:
                found.append(_read(folder))
            except Exception as error:  # one bad version must not take the others away
                self.problems[folder] = str(error)
        return sorted(found, key=lambda each: version_order(each.card.version))

    def has(self, name: str, version: str) -> bool:
        """True when the version is installed, whether usable or not."""
        return self.folder(name, version).is_dir()

    def present(self, name: str) -> list[str]:
        """The installed versions of a model, whether usable or not, oldest first."""
        there = _folders(self.root / name) if re.fullmatch(NAME, name) else []
        return sorted((folder.name for folder in there), key=version_order)

    # The default versions: the desired state that every replica follows

    def default_of(self, name: str) -> str | None:
        """The version that `name` alone means: the one that was set, else the newest. None without any."""
        return pick_default(self.versions(name), self.defaults().get(name))

    def defaults(self) -> dict[str, str]:
        """The versions that were set by `set_default`.

        A damaged file is a problem, and what was read before counts: callers must not be moved to another version by a
        file that somebody is writing.
        """
        path = self.root / DEFAULTS_FILE
        try:
            if path.stat().st_size > MAX_CARD_BYTES or not path.is_file():
                raise ValueError(f"expected a file of at most {MAX_CARD_BYTES} bytes")
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not all(isinstance(version, str) for version in content.values()):
                raise ValueError("expected a JSON object of names and versions")
        except FileNotFoundError:
            content = {}
        except (ValueError, OSError, RecursionError) as error:
            self.problems[path] = str(error)
            return self._last_defaults
        self._last_defaults = content
        return content

    def set_default(self, name: str, version: str) -> None:
        """Makes `version` what `name` alone means, for every process that watches the store."""
        self._must_have(name, version)
        with self.lock("defaults"):
            self._write_defaults({**self.defaults(), name: version})

    def _write_defaults(self, defaults: dict[str, str]) -> None:
        with self.staging() as folder, disk_errors(self.root):
            draft = folder / DEFAULTS_FILE
            draft.write_text(json.dumps(defaults, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            sync(draft)
            draft.replace(self.root / DEFAULTS_FILE)

    # Coming and going

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder on the store's own disk, gone afterwards unless it was installed."""
        with disk_errors(self.root):
            parent = self.root / ".tmp"
            parent.mkdir(parents=True, exist_ok=True)
            _sweep(parent)
            folder = Path(tempfile.mkdtemp(dir=parent))
            # mkdtemp keeps others out; a store is often filled by one user and read by another.
            folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def install(self, card: Card, files_from: Path, *, replace: bool = False) -> Path:
        """Publishes a folder from `staging()` as a version, with its card, and returns where it lies.

        AlreadyInstalled when the version is there, unless `replace` is set.
        """
        target = self.folder(card.name, card.version)
        with disk_errors(self.root):
            write_card(card, files_from / CARD_FILE)
            _checked_files(card, files_from)
            _protect(card, files_from)
            sync_tree(files_from)
            with self.lock("install"), self.staging() as attic:
                if not self.has(card.name, card.version):
                    publish(files_from, target)
                elif replace:
                    exchange(files_from, target, attic / "old")
                else:
                    raise AlreadyInstalled(f"{card.key} is in the store already ({target})")
        return target

    def remove(self, name: str, version: str) -> None:
        """Takes a version out of the store at once; services unload it as soon as their calls have ended.

        UnknownVersion when it is not there. A default that was set goes with its version.
        """
        self._must_have(name, version)
        with disk_errors(self.root), self.lock("install"), self.staging() as attic:
            self._must_have(name, version)  # another process may have been quicker
            self.folder(name, version).rename(attic / "old")
            with suppress(OSError):  # it has other versions, or is a link
                (self.root / name).rmdir()
        with self.lock("defaults"):
            defaults = self.defaults()
            if defaults.get(name) == version:
                self._write_defaults({key: value for key, value in defaults.items() if key != name})

    def _must_have(self, name: str, version: str) -> None:
        proper = re.fullmatch(NAME, name) and re.fullmatch(VERSION, version)  # no path out of the store
        if not proper or not self.has(name, version):
            there = ", ".join(self.present(name)) or "none"
            key = f"{name}@{version}" if version else name
            raise UnknownVersion(f"{key} is not in the store {self.root} (versions there: {there})")

    # Other processes

    @contextmanager
    def lock(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Keeps other processes (and threads) out of `name`; calls `waiting` when it has to wait for one."""
        with disk_errors(self.root):
            folder = self.root / ".locks"
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{name}.lock", mode=0o666)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waiting()
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def watch(self, *, make: bool = True) -> AsyncIterator[None]:
        """Yields whenever something changed after this call; look at `cards()` and `defaults()` again then.

        Call it before the first `cards()`, so that nothing falls between the two. Changes that come together
        are told once. A store that does not exist is made, if `make` is set.
        """
        if make:
            with disk_errors(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
        return watch_tree(self.root)


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _protect(card: Card, folder: Path) -> None:
    """Takes the right to write a version's files away: sessions map weights into memory, and die with their process
    when such a file is written over or cut (a new file in its place, as `cp -f` and `mv` make it, harms nobody)."""
    for name in card.files:
        with suppress(PermissionError):  # a file system that knows no such rights
            (folder / name).chmod(0o444)


def _sweep(parent: Path) -> None:
    for path in parent.iterdir():
        try:
            abandoned = time.time() - path.stat().st_mtime > ABANDONED_SECONDS
        except FileNotFoundError:  # its owner was quicker
            continue
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)


def _read(folder: Path) -> Installed:
    """A version folder; ValueError when it is not what its card says."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise ValueError(f"there is no {CARD_FILE}")
    before = _facts(path)
    card = read_card(path)
    if (card.name, card.version) != (folder.parent.name, folder.name):
        raise ValueError(f"the card is for {card.key}, the folder for {folder.parent.name}@{folder.name}")
    identity = (
        before,
        *(_facts(folder / name) for name in sorted({*card.files, card.graph}) if (folder / name).exists()),
    )
    _checked_files(card, folder)
    return Installed(card, folder, identity)


def _facts(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


def _checked_files(card: Card, folder: Path) -> None:
    missing = [name for name in card.files if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"files of {card.key} are missing: {', '.join(missing)}")


def pick_default(versions: Iterable[str], chosen: str | None) -> str | None:
    """The version that was set, where it is among these, else the newest; None of none."""
    known = set(versions)
    return chosen if chosen in known else max(known, key=version_order, default=None)


def version_order(version: str) -> list[tuple[int, Any]]:
    """So that 10 comes after 9 and 1.10 after 1.9."""
    return [(1, int(part)) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", version) if part]
