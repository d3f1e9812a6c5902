"""Watching a folder of models: one signal for each change that a reader would see. Stage: store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import watchfiles

Fingerprint = frozenset[tuple[str, int, int, int]]

# Changes that follow each other within this time are told once.
DEBOUNCE_MS = 400
# A network file system tells nobody what another machine changed: look from time to time as well.
LOOK_AGAIN_MS = 10_000


def watch_tree(root: Path) -> AsyncIterator[None]:
    """Yields after each change below `root`, counted from this call on; paths with a part `.…` do not count."""
    return _changes(root, fingerprint(root))


async def _changes(root: Path, seen: Fingerprint) -> AsyncIterator[None]:
    # Events only say when to look: what counts is whether a reader would see something else than before. So
    # nothing is lost between the call and the first event, and our own temporary files wake nobody.
    events = watchfiles.awatch(
        root,
        watch_filter=lambda _, path: not _hidden(Path(path), root),
        debounce=DEBOUNCE_MS,
        rust_timeout=LOOK_AGAIN_MS,
        yield_on_timeout=True,
    )
    if (now := fingerprint(root)) != seen:
        seen = now
        yield
    async for _ in events:
        if (now := fingerprint(root)) != seen:
            seen = now
            yield


def fingerprint(root: Path) -> Fingerprint:
    """Path, inode, size and time of every visible file; what a rename, an edit or a removal changes."""
    return frozenset(_entries(root, root))


def _entries(folder: Path, root: Path) -> list[tuple[str, int, int, int]]:
    found: list[tuple[str, int, int, int]] = []
    try:
        entries = list(os.scandir(folder))
    except OSError:  # removed while we look, not for our eyes, a loop of links
        return found
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            found += _entries(Path(entry.path), root)
            continue
        try:
            facts = entry.stat()
        except OSError:
            continue
        found.append((os.path.relpath(entry.path, root), facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return found


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
