"""A model that brings its service down while it loads stops the others three times, and then no more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ortmesh.serving.store import Store
from ortmesh.serving.suspects import MOST_DEATHS, Suspect, Suspects
from tests.serving import graphs
from tests.serving.shelf import install

SERVICE = """
import asyncio, os, signal, sys
from pathlib import Path
from ortmesh.serving import loaded, loader
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.suspects import Suspects
from ortmesh.serving.types import NoMeter

def load(card, *rest, **more):
    if card.description == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return loaded.load(card, *rest, **more)

async def main():
    loader.load = load
    suspects = Suspects(Path(sys.argv[2]))
    async with Models(Store(Path(sys.argv[1])), "nlp", threads=2, meter=lambda *_: NoMeter(), suspects=suspects) as all:
        await all.until_loaded()
        print(*(f"{model.name} {model.state} {model.state_reason}" for model in all.list()), sep="\\n")

asyncio.run(main())
"""


def start(store: Store, marks: Path) -> tuple[int, dict[str, str]]:
    """A service, until its models are loaded: its exit code, and their states with their reasons by name."""
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, str(store.root), str(marks)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_a_deadly_model_is_left_out_after_a_few_deaths_and_the_others_serve(tmp_path: Path) -> None:
    store, marks = Store(tmp_path / "store"), tmp_path / "marks"
    graphs.double(tmp_path / "double")
    for number in range(5):
        install(store, tmp_path / "double", name=f"good-{number}")
    install(store, tmp_path / "double", name="deadly", description="deadly")
    assert [start(store, marks)[0] for _ in range(MOST_DEATHS)] == [-9] * MOST_DEATHS
    code, states = start(store, marks)
    assert code == 0
    assert states.pop("deadly").startswith("FAILED the service died 3 times while it loaded this model")
    assert {state.strip() for state in states.values()} == {"READY"}
    install(store, tmp_path / "double", name="deadly", replace=True, description="mended")
    code, states = start(store, marks)
    assert code == 0
    assert states["deadly"].strip() == "READY"
    assert not marks.exists()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The folder of a version."""
    (tmp_path / "version").mkdir()
    (tmp_path / "version" / "model.onnx").write_text("x")
    return tmp_path / "version"


def died(marks: Path, version: Path, times: int) -> Suspects:
    """What the next process knows after so many died."""
    for _ in range(times):
        with Suspects(marks).loading("cat@1", version):
            kept = [(path.name, path.read_text()) for path in marks.iterdir()]
        for name, content in kept:
            (marks / name).write_text(content)
        Suspects(marks).look()
    return Suspects(marks)


def test_what_was_loaded_when_a_process_died_is_suspected(tmp_path: Path, version: Path) -> None:
    Suspects(tmp_path / "marks").look()
    suspects = died(tmp_path / "marks", version, 1)
    assert suspects.of_version("cat@1", version) == 1
    assert suspects.of_version("dog@1", version) == 0
    with suspects.loading("cat@1", version):
        pass
    assert suspects.of_version("cat@1", version) == 0, "it killed nobody this time"


def test_a_load_that_fails_kills_nobody(tmp_path: Path, version: Path) -> None:
    suspects = Suspects(tmp_path)
    with pytest.raises(ValueError, match="no graph"), suspects.loading("cat@1", version):
        raise ValueError("no graph")
    suspects.look()
    assert suspects.of_version("cat@1", version) == 0


def test_other_live_services_are_no_deaths(tmp_path: Path, version: Path) -> None:
    parent = os.getppid()
    (tmp_path / f"cat@1.{parent}.loading").write_text("x")
    suspects = Suspects(tmp_path)
    suspects.look()
    assert (tmp_path / f"cat@1.{parent}.loading").exists()


def test_other_files_or_a_day_are_a_new_chance(tmp_path: Path, version: Path) -> None:
    (tmp_path / "marks").mkdir()
    suspects = died(tmp_path / "marks", version, 2)
    (tmp_path / "marks" / "cat@1.deaths").write_text(
        (tmp_path / "marks" / "cat@1.deaths").read_text().replace(" 2", " 3")
    )
    with pytest.raises(Suspect, match="3 times"), suspects.loading("cat@1", version):
        pass
    yesterday = time.time() - 25 * 3600
    os.utime(tmp_path / "marks" / "cat@1.deaths", (yesterday, yesterday))
    assert suspects.of_version("cat@1", version) == 0
    os.utime(tmp_path / "marks" / "cat@1.deaths")
    (version / "model.onnx").write_text("another")
    assert suspects.of_version("cat@1", version) == 0


def test_engines_that_were_built_of_a_model_are_no_new_files_of_it(tmp_path: Path, version: Path) -> None:
    suspects = died(tmp_path / "marks", version, 2)
    (version / ".tensorrt").mkdir()
    (version / ".tensorrt" / "x.engine").write_text("x")
    assert suspects.of_version("cat@1", version) == 2
    (version / "parts").mkdir()
    (version / "parts" / "weights.data").write_text("x")
    assert suspects.of_version("cat@1", version) == 0


def test_where_nothing_can_be_remembered_everything_is_loaded(tmp_path: Path, version: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    suspects = Suspects(tmp_path / "file" / "marks")
    suspects.look()
    with suspects.loading("cat@1", version):
        pass
