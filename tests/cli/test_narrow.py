"""What is listed can be read in a terminal of 80 columns and out of a pipe: no name is folded, none is cut."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from ortmesh import catalogue
from ortmesh.models.v1 import models_pb2
from ortmesh.serving.cards import Card, License
from ortmesh.serving.store import Store
from tests.cli.conftest import Mesh, Run, model

COLUMNS = 80
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def in_terminal(*arguments: object, columns: int = COLUMNS) -> list[str]:
    """What `ortmesh …` prints in a real terminal of so many columns, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "ortmesh.cli", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=theirs, env={**environment, "TERM": "xterm"})
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return [line.rstrip() for line in ANSI.sub("", written.decode()).splitlines()]


def words(lines: list[str]) -> set[str]:
    return {word.rstrip(",*") for line in lines for word in line.split()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a model of a long name."""
    made = Store(tmp_path / "models")
    card = Card(
        name="smollm2-135m-instruct-f16",
        family="nlp",
        tasks=["generate", "count_tokens"],
        description="Short English answers in conversation, by a very small model that often makes up what it says.",
        files={"model.onnx": None},
        license=License(weights="Apache-2.0", attribution="SmolLM2 by Hugging Face, quantized and packaged by others"),
    )
    with made.staging() as folder:
        (folder / "model.onnx").write_bytes(b"no graph")
        made.install(card, folder)
    return made


def test_the_catalogue_fits_into_80_columns(store: Store) -> None:
    lines = in_terminal("pull", "--list", "--models", store.root)
    assert max(map(len, lines[:-1])) <= COLUMNS
    everything = words(lines)
    for card in catalogue.cards():
        assert {card.key, card.family, *card.tasks, card.license.weights} <= everything
    assert any(line.startswith("smollm2-135m-instruct-f16@1 ") and " fetched " in line for line in lines)
    assert any(line.startswith("whisper-base@1 ") and " optional " in line for line in lines)
    assert any(line.startswith("whisper-tiny-en@1 ") and " default " in line for line in lines)
    assert lines[-1].startswith("fetched: in the store; ")


def test_out_of_a_pipe_each_model_of_the_catalogue_is_a_line(run: Run, store: Store) -> None:
    lines = run("pull", "--list", "--models", store.root).stdout.splitlines()
    for card in catalogue.cards():
        (line,) = [line for line in lines if line.startswith(f"{card.key} ")]
        assert ", ".join(card.tasks) in line
        assert card.license.weights in line


def test_the_stores_models_fit_into_80_columns_and_less(store: Store) -> None:
    for columns in (COLUMNS, 60):
        lines = in_terminal("models", "list", "--models", store.root, columns=columns)
        assert {"smollm2-135m-instruct-f16@1", "generate", "count_tokens", "INSTALLED"} <= words(lines)
    shown = " ".join(in_terminal("models", "show", "smollm2-135m-instruct-f16", "--models", store.root))
    assert "often makes up what it says." in " ".join(shown.split())


def test_a_long_reason_has_lines_of_its_own(mesh: Mesh, run: Run) -> None:
    """So that neither it nor the table is folded into a few columns."""
    failed = model("whisper", models_pb2.MODEL_STATE_FAILED)
    failed.state_reason = "the card requires cuda: " + "ONNX Runtime is installed for CPUs here " * 5
    failed.retrying = True
    mesh.answers["ListModels"] = models_pb2.ListModelsResponse(models=[model("minilm"), failed])
    lines = [line.rstrip() for line in run("models", "list").stdout.splitlines()]
    assert "whisper@1 *  nlp     embed  FAILED" in lines
    assert f"whisper@1: {failed.state_reason}; it is tried again" in lines


def test_who_answers_a_request_without_a_models_name_is_marked(mesh: Mesh, run: Run) -> None:
    first, second = model("minilm"), model("e5")
    first.tasks.append("rank")
    first.default_for.append("rank")
    second.default_for.append("embed")
    mesh.answers["ListModels"] = models_pb2.ListModelsResponse(models=[first, second])
    mesh.answers["GetModel"] = first
    lines = [line.split() for line in run("models", "list").stdout.splitlines()]
    assert ["minilm@1", "*", "nlp", "embed,", "rank*", "READY"] in lines
    assert ["e5@1", "*", "nlp", "embed*", "READY"] in lines
    assert "of a task: answers requests that name no model" in " ".join(lines[-1])
    assert ["default", "for", "rank"] in [line.split() for line in run("models", "show", "minilm").stdout.splitlines()]
