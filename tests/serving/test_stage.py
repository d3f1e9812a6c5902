"""One measurement at a time, in this process and beside others."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from ortmesh.serving.executor.stage import Stage

HOLD = """
import sys
from pathlib import Path
from ortmesh.serving.executor.stage import Stage
with Stage(Path(sys.argv[1])).taken():
    print("taken", flush=True)
    sys.stdin.readline()
"""


def test_two_executors_of_a_process_do_not_measure_side_by_side(tmp_path: Path) -> None:
    stage, order = Stage(tmp_path / "lock"), list[str]()

    def other() -> None:
        with stage.taken():
            order.append("other")

    with stage.taken():
        with stage.free() as free:
            assert not free
        thread = threading.Thread(target=other)
        thread.start()
        order.append("mine")
    thread.join()
    assert order == ["mine", "other"]
    with stage.free() as free:
        assert free


def test_another_process_is_seen_and_not_waited_for_for_ever(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "taken\n"
    stage = Stage(tmp_path / "lock")
    with stage.free() as free:
        assert not free
    with stage.taken():  # after its patience
        pass
    holder.communicate("done\n")
    with stage.free() as free:
        assert free


def test_where_no_file_can_be_made_it_measures_all_the_same(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "gone" / "lock")
    with stage.free() as free:
        assert free
    with stage.taken():
        pass


def test_a_system_without_a_folder_for_temporary_files_measures_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose file system is read-only."""

    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with Stage().free() as free:
        assert free
    with Stage().taken():
        pass
