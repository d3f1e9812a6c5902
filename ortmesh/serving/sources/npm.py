"""`npm:` sources: a package's tarball, taken from the registry without npm (users of Python lack it). Stage: store."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from ortmesh.serving.cards import Source
from ortmesh.serving.digests import matches
from ortmesh.serving.faults import PullError, SourceMissing, WrongChecksum
from ortmesh.serving.sources import web
from ortmesh.serving.sources.fetching import Archive, Progress, body

REGISTRY = "https://registry.npmjs.org"


def fetch(source: Source, folder: Path, progress: Progress) -> Archive:
    """Downloads the tarball of `npm:name@version` into `folder` and checks the registry's own sum."""
    name, _, version = body(source).rpartition("@")
    if not name or not version:
        raise PullError(f"{source.uri}: write npm:NAME@VERSION")
    target = folder / f"{PurePosixPath(name).name}-{version}.tgz"
    if not matches(target, source.sha256):
        distribution = _distribution(name, version)
        web.download(distribution["tarball"], target, progress)
        _verify_integrity(target, str(distribution.get("integrity", "")), source.uri)
    return Archive(target, strip=True)


def _registry() -> str:
    """Where packages come from, by npm's own variable (which it reads in either case)."""
    named = (value for name, value in os.environ.items() if name.upper() == "NPM_CONFIG_REGISTRY" and value)
    return next(named, REGISTRY).rstrip("/")


def _distribution(name: str, version: str) -> dict[str, Any]:
    facts = web.get_json(f"{_registry()}/{quote(name, safe='@')}/{quote(version)}")
    distribution = facts.get("dist")
    if not isinstance(distribution, dict) or "tarball" not in distribution:
        raise SourceMissing(f"the registry {web.shown(_registry())} has no tarball of {name}@{version}")
    return distribution


def _verify_integrity(path: Path, integrity: str, what: str) -> None:
    """Checks `sha512-…` (base64), as the registry publishes it; registries of old packages have none."""
    for entry in integrity.split():
        algorithm, _, expected = entry.partition("-")
        if algorithm != "sha512":
            continue
        with path.open("rb") as file:
            actual = base64.b64encode(hashlib.file_digest(file, algorithm).digest()).decode()
        if actual != expected:
            path.unlink()
            raise WrongChecksum(what, entry, f"{algorithm}-{actual}")
