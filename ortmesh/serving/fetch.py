"""pull: from a card to an installed version: fetch, take files out, check, convert, install. Stage: store."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ortmesh.serving.cards import CARD_FILE, Card, Source
from ortmesh.serving.child import run
from ortmesh.serving.digests import sha256_of, verify
from ortmesh.serving.faults import (
    ConversionFailed,
    DiskFull,
    PullError,
    SourceMissing,
    SourceUnreachable,
    WrongChecksum,
    disk_errors,
)
from ortmesh.serving.origin import note, standing
from ortmesh.serving.sources import FETCHES
from ortmesh.serving.sources.archive import extract
from ortmesh.serving.sources.fetching import FULL, Archive, Files, Progress, Step, silent
from ortmesh.serving.store import Store

__all__ = ["Progress", "Step", "pull"]

log = logging.getLogger(__name__)


def pull(card: Card, store: Store, progress: Progress = silent, *, again: bool = False) -> Path:
    """Installs the card's model into the store and returns its folder. Raises a StoreError.

    A version that is there is made anew only when the card or its recipe changed since, and only if nobody edited
    the installed card; `again` makes it anew in any case. Two processes that pull the same version do it once.
    """
    if not again and _is_there(card, store):
        return store.folder(card.name, card.version)  # no lock: a store that is full of models may be read-only
    with store.lock(card.key, lambda: progress(Step("waiting", f"{card.key}: another process is installing it"))):
        if not again and _is_there(card, store):
            return store.folder(card.name, card.version)
        try:
            return _install(card, store, progress)
        except (SourceUnreachable, SourceMissing) as error:
            if again or not store.has(card.name, card.version):
                raise
            log.warning("%s is outdated and goes on as it is: %s", card.key, error)
            return store.folder(card.name, card.version)


def _is_there(card: Card, store: Store) -> bool:
    """True when there is a version that should stay as it is."""
    if not store.has(card.name, card.version):
        return False
    stands = standing(store.folder(card.name, card.version), card)
    if stands == "edited":
        log.warning("%s was edited in the store and stays as it is, though its source has changed", card.key)
    return stands != "outdated"


def _install(card: Card, store: Store, progress: Progress) -> Path:
    with store.staging() as work, store.staging() as made:
        taken = _take(card, store, work, progress)
        with disk_errors(store.root):
            _make(card, taken, made, progress)
            installed = _with_sums(card, made)
            note(made, card, installed)
        progress(Step("installing", card.key))
        return store.install(installed, made, replace=True)


def _take(card: Card, store: Store, work: Path, progress: Progress) -> Mapping[str, Path]:
    """Every file that the sources list, by its path in the source, checked."""
    taken: dict[str, Path] = {}
    for number, source in enumerate(card.sources):
        files = _take_source(source, store, work / str(number), progress)
        if twice := taken.keys() & files.keys():
            raise PullError(f"{card.key}: two sources have a file {', '.join(sorted(twice))}")
        taken |= files
    return taken


def _take_source(source: Source, store: Store, out: Path, progress: Progress) -> Mapping[str, Path]:
    scheme = source.uri.partition(":")[0]
    if scheme not in FETCHES:
        raise PullError(f"{source.uri}: unknown kind of source {scheme!r}, known are {', '.join(FETCHES)}")
    key = _cache_key(source)
    folder = store.cache / scheme / key
    with store.lock(f"source-{scheme}-{key}", lambda: progress(Step("waiting", f"{source.uri}: being downloaded"))):
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return _checked(source, FETCHES[scheme](source, folder, progress), folder, out, progress)


def _checked(
    source: Source, fetched: Archive | Files, cache: Path, out: Path, progress: Progress
) -> Mapping[str, Path]:
    """The listed files with the sums that the card gives; what is wrong is forgotten, so that a later try asks anew."""
    originals = [fetched.path] if isinstance(fetched, Archive) else list(fetched.paths.values())
    try:
        if source.sha256 is not None:
            (original,) = originals
            verify(original, source.sha256, source.uri)
        if isinstance(fetched, Archive):
            progress(Step("extracting", fetched.path.name))
            paths = extract(fetched, source.files, out)
        else:
            paths = _copies(fetched.paths, out)
        for name, path in paths.items():
            verify(path, source.files.get(name), f"{name} of {source.uri}")
    except WrongChecksum:
        for path in originals:
            if path.is_relative_to(cache):  # never a user's own file
                path.unlink()
        raise
    return paths


def _copies(paths: Mapping[str, Path], out: Path) -> Mapping[str, Path]:
    """Copies of single files: another process may need the cached ones, a user the original ones."""
    copies = {}
    for name, path in paths.items():
        if not path.is_file():
            raise SourceMissing(f"{path} does not exist")
        copies[name] = out / name
        with disk_errors(out):
            copies[name].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copies[name])
    return copies


def _cache_key(source: Source) -> str:
    """A folder's name: readable, and distinct for what is distinct."""
    what = json.dumps([source.uri, source.platform, source.python_version])
    readable = re.sub(r"[^A-Za-z0-9.@=_-]+", "-", source.uri.partition(":")[2].partition("?")[0]).strip("-")
    return f"{readable[-80:]}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def _make(card: Card, taken: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Writes the model's files into `out`."""
    if card.recipe is not None:
        progress(Step("converting", card.key))
        _convert(card.recipe, _by_base_name(card, taken), out)
    else:
        for name, path in taken.items():
            target = out / (name if name in card.files else PurePosixPath(name).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    for name, expected in card.files.items():
        if not (out / name).is_file():
            made = ", ".join(sorted(str(path.relative_to(out)) for path in out.rglob("*"))) or "nothing"
            raise ConversionFailed(f"{card.key}: {name} was not made (made: {made})")
        verify(out / name, expected, f"{name} of {card.key}")


def _by_base_name(card: Card, taken: Mapping[str, Path]) -> Mapping[str, Path]:
    named = {PurePosixPath(name).name: path for name, path in taken.items()}
    if len(named) != len(taken):
        raise PullError(f"{card.key}: a recipe needs files of different base names, got {', '.join(taken)}")
    return named


def _convert(recipe: str, sources: Mapping[str, Path], out: Path) -> None:
    arguments = [recipe, str(out), json.dumps({name: str(path) for name, path in sources.items()})]
    status, log = run([sys.executable, "-P", "-m", "ortmesh.serving.convert", *arguments])
    if status != 0 and FULL.search(log):
        raise DiskFull(f"no space is left while the recipe {recipe} writes to {out}")
    if status != 0:
        last = log.strip().splitlines()[-1:] or [f"exit status {status}"]
        raise ConversionFailed(f"the recipe {recipe} failed: {last[0]}", log)


def _with_sums(card: Card, folder: Path) -> Card:
    """The card as it is installed: with every file that was made, and its sum."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CARD_FILE)
    return card.model_copy(update={"files": {str(path.relative_to(folder)): sha256_of(path) for path in paths}})
