"""Watching a folder of models: one signal for each change that a reader would see. Stage: store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import watchfiles

from ortmesh.serving.cards import CARD_FILE

Fact = tuple[str, int, int, int]
Fingerprint = frozenset[Fact]

# Changes that follow each other within this time are told once.
DEBOUNCE_MS = 400
# A network file system tells nobody what another machine changed: look from time to time as well.
LOOK_AGAIN_MS = 10_000


def watch_tree(root: Path) -> AsyncIterator[None]:
    """Yields after each change of what versions consist of, counted from this call on; names like `.…` do not count."""
    return _changes(root, fingerprint(root))


async def _changes(root: Path, seen: Fingerprint) -> AsyncIterator[None]:
    # Events only say when to look: what counts is whether a reader would see something else than before. So
    # nothing is lost between the call and the first event, and our own temporary files wake nobody.
    while True:
        async with aclosing(_wake(await asyncio.to_thread(_places, root))) as times:
            async for _ in times:
                if (now := await asyncio.to_thread(fingerprint, root)) != seen:
                    seen = now
                    yield


async def _wake(places: Sequence[Path]) -> AsyncGenerator[None, None]:
    """Yields once it watches these folders, when something happens in one, and from time to time. Ends when there
    are others.

    They are watched one by one: a link in a store may lead anywhere, and the watch of a tree would follow it, for
    twenty seconds of the event loop's time where it leads to the root of the file system.
    """
    events = watchfiles.awatch(
        *places,
        watch_filter=lambda _, path: not Path(path).name.startswith("."),
        debounce=DEBOUNCE_MS,
        rust_timeout=LOOK_AGAIN_MS,
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    )

    async def event() -> None:
        await anext(events)

    async with aclosing(events):
        coming = asyncio.create_task(event())
        try:
            await asyncio.sleep(0)  # it watches now
            while True:
                yield
                if await asyncio.to_thread(_places, places[0]) != places:
                    return
                await coming
                coming = asyncio.create_task(event())
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def _places(root: Path) -> Sequence[Path]:
    """The root, the models' folders, and those of versions: what has a card. Also where they are links to folders."""
    # A name beyond ASCII is no model's, and one that is not UTF-8 can't be watched.
    models = [Path(entry.path) for entry in _visible(root) if entry.name.isascii() and _is_folder(entry)]
    versions = [Path(entry.path) for model in models for entry in _visible(model) if _is_version(entry)]
    return [root, *sorted(models), *sorted(versions)]


def _is_version(entry: os.DirEntry[str]) -> bool:
    return entry.name.isascii() and _is_folder(entry) and os.path.exists(os.path.join(entry.path, CARD_FILE))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def fingerprint(root: Path) -> Fingerprint:
    """Path, inode, size and time of every file of a version; what a rename, an edit or a removal changes."""
    return frozenset(fact for place in _places(root) for fact in _facts(place, deep=(place / CARD_FILE).exists()))


def _facts(folder: Path, *, deep: bool) -> Iterator[Fact]:
    """Of a folder's files; `deep`: also of those in its own folders, but not of those behind links."""
    for entry in _visible(folder):
        if _is_folder(entry):
            if deep and not entry.is_symlink():
                yield from _facts(Path(entry.path), deep=True)
            continue
        try:
            status = entry.stat()
        except OSError:  # it goes while we look
            continue
        yield entry.path, status.st_ino, status.st_size, status.st_mtime_ns


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:  # removed while we look, not for our eyes, a loop of links
        return []
