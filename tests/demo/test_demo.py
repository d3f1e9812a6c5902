"""`python -m demo`, run as a newcomer runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ortmesh.serving.store import Store
from tests.docs.pages import ROOT

END_SECONDS = 200
"""A machine that does much else takes ten times as long."""
MARK = "ORTMESH_TEST_RUN"
INTERRUPTED = (130, -signal.SIGINT)
"""Both are 130 for a shell. CPython ends itself by the signal where the interruption fell into code that is made of a
string, as a dataclass is while its module is imported, though it was handled."""


class Run:
    """One run of the demo; what it started carries its mark in the environment."""

    def __init__(self, store: Store, page: Path, scratch: Path) -> None:
        self.mark = uuid.uuid4().hex
        command = [sys.executable, "-m", "demo", "--models", str(store.root), "--page", str(page)]
        environment = {**os.environ, MARK: self.mark, "TMPDIR": str(scratch), "COLUMNS": "160", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def read_until(self, text: str) -> None:
        """Reads what it prints until a line holds the text."""
        assert self.process.stdout is not None
        assert any(text in line for line in self.process.stdout), f"the demo ended before {text!r}"

    def end(self) -> tuple[int, str]:
        """Its exit status and the rest of what it printed."""
        printed, _ = self.process.communicate(timeout=END_SECONDS)
        return self.process.returncode, printed

    def left(self) -> list[int]:
        """Processes with its mark that live."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue
        return found

    def none_left(self) -> bool:
        """True as soon as no process lives, False when some do after a while."""
        deadline = time.monotonic() + END_SECONDS
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.left()


@pytest.fixture
def demo(store: Store, tmp_path: Path) -> Iterator[Run]:
    scratch = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))  # short: there are sockets in it
    run = Run(store, tmp_path / "page.html", scratch)
    yield run
    for pid in run.left():
        os.kill(pid, signal.SIGKILL)
    run.process.communicate()
    shutil.rmtree(scratch)


def test_the_demo_shows_every_task_and_ends_well(demo: Run, tmp_path: Path) -> None:
    status, printed = demo.end()
    assert status == 0, printed
    for answer in (
        "espresso",
        "6 found",
        "HARBOUR LIGHT FERRY",
        "市立图书馆",
        "every word is right",
        "Loans last four weeks",
    ):
        assert answer in printed
    for code in ("INVALID_ARGUMENT", "image.encoded", "MODEL_NOT_FOUND"):
        assert code in printed
    assert str(tmp_path / "page.html") in printed
    assert "espresso" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert demo.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_its_mesh(demo: Run, number: signal.Signals) -> None:
    demo.read_until("Starting the mesh")
    demo.process.send_signal(number)
    status, printed = demo.end()
    assert status in INTERRUPTED, printed
    assert demo.left() == []
    assert "Interrupted" in printed


def test_a_demo_that_is_killed_takes_its_mesh_along(demo: Run) -> None:
    demo.read_until("Starting the mesh")
    demo.process.kill()
    assert demo.none_left()
