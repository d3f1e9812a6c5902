"""`ortmesh up`, `serve` and `gateway` as a person starts them: real processes, a real model, a real gateway."""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient import grpc as triton

from ortmesh.cli.health import until_serving
from ortmesh.serving.add import add
from ortmesh.serving.cards import CARD_FILE, Runtime, read_card, write_card
from ortmesh.serving.store import Store
from tests.cli.conftest import Run

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="Envoy's wheel is for Linux")]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with one small model of the family nlp, where ORTMESH_MODELS says."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    file = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    made = Store(tmp_path / "models")
    add(file, "double", "nlp", made)
    monkeypatch.setenv("ORTMESH_MODELS", str(made.root))
    return made


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A short folder: pytest's own are too deep for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


class Command:
    """`ortmesh …` as a process; `until` reads its output."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "ortmesh.cli", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []

    def until(self, pattern: str) -> re.Match[str]:
        """Reads on to the line that has the pattern."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended without {pattern!r}:\n" + "\n".join(self.lines))

    def end(self, number: signal.Signals | None = None) -> int:
        """Sends the signal, reads the rest and returns the exit code."""
        if number is not None:
            self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=60)
        self.lines += rest.splitlines()
        return self.process.returncode

    def children(self, word: str) -> list[int]:
        """The command's children with a word in their command line, oldest first."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                line = (folder / "cmdline").read_bytes().decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid and word in line:
                found.append(int(folder.name))
        return sorted(found)


@pytest.fixture
def started() -> Iterator[list[Command]]:
    """What a test started; killed when the test did not end it."""
    commands: list[Command] = []
    yield commands
    for command in commands:
        if command.process.poll() is None:
            command.process.kill()
        command.process.communicate()


def _start(started: list[Command], *arguments: object) -> Command:
    started.append(Command(*arguments))
    return started[-1]


def _double(address: str, numbers: Sequence[float]) -> list[float]:
    """What the mesh makes of a row of three numbers."""
    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(np.array([numbers], np.float32))
        return [float(number) for number in client.infer("double", [tensor], client_timeout=60).as_numpy("y")[0]]


@pytest.mark.usefixtures("store")
def test_up_serves_restarts_what_dies_and_ends_in_order(started: list[Command], runtime: Path, run: Run) -> None:
    up = _start(started, "up", "--port", 0, "--replicas", "nlp=2", "--runtime", runtime)
    up.until(r"^ready in [\d.]+ s")
    address = up.until(r"mesh +(127\.0\.0\.1:\d+)")[1]
    up.until("Try, from another terminal")
    assert _double(address, [1, 2, 3]) == [2, 4, 6]
    listed = run("models", "list", "--address", address)
    assert "READY" in listed.stdout, listed.output

    os.kill(up.children("ortmesh_nlp")[0], signal.SIGKILL)
    up.until(r"nlp-[01] +│ was ended by SIGKILL; starts again in 0.5 s")
    assert _double(address, [1, 2, 3]) == [2, 4, 6]  # the other replica answers
    up.until(r"nlp-[01] +│ .*listens on")

    assert up.end(signal.SIGTERM) == 0
    shown = "\n".join(up.lines)
    draining = [re.split(r"[ -]", line)[0] for line in up.lines if "draining" in line]
    assert sorted(draining[:2]) == ["gateway", "proxy"], shown
    assert draining[2:] == ["nlp", "nlp"], shown
    assert up.lines[-1] == "stopped"
    assert "killed" not in shown
    assert not list(runtime.glob("*.sock"))


@pytest.mark.usefixtures("store")
def test_when_up_is_killed_its_parts_end_too(started: list[Command], runtime: Path) -> None:
    up = _start(started, "up", "--port", 0, "--runtime", runtime)
    up.until("^ready in")
    parts = [os.pidfd_open(pid) for pid in up.children("ortmesh_")]
    assert len(parts) == 3
    up.process.kill()
    for part in parts:
        assert _ends(part)


def _ends(process: int, seconds: float = 60) -> bool:
    """True when the process of this descriptor ends in time."""
    ended, _, _ = select.select([process], [], [], seconds)
    os.close(process)
    return bool(ended)


@pytest.mark.usefixtures("store")
def test_a_second_ctrl_c_ends_at_once(started: list[Command], runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTMESH_GATEWAY_DRAIN_SECONDS", "600")
    up = _start(started, "up", "--port", 0, "--runtime", runtime)
    up.until("^ready in")
    up.process.send_signal(signal.SIGINT)
    up.until("gateway +│ .*draining")
    assert up.end(signal.SIGINT) == 0
    assert up.lines[-1] == "stopped"
    assert not any("nlp is draining" in line for line in up.lines)


@pytest.mark.usefixtures("store")
def test_services_do_not_wait_for_callers_who_are_gone(
    started: list[Command], runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTMESH_SERVICE_DRAIN_SECONDS", "600")
    up = _start(started, "up", "--port", 0, "--runtime", runtime)
    up.until("^ready in")
    assert up.end(signal.SIGINT) == 0
    assert any("nlp is draining" in line for line in up.lines)
    assert not any("killed" in line for line in up.lines)


@pytest.mark.usefixtures("store")
def test_a_service_drains_on_sigterm_until_sigint_comes(
    started: list[Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTMESH_SERVICE_DRAIN_SECONDS", "600")
    serve = _start(started, "serve", "nlp", "--port", 0)
    address = serve.until(r"listens on (127\.0\.0\.1:\d+)")[1]
    serve.until("double@1 is ready")
    serve.process.send_signal(signal.SIGTERM)
    serve.until("nlp is draining")
    assert _double(address, [1, 2, 3]) == [2, 4, 6]
    assert serve.end(signal.SIGINT) == 0


@pytest.mark.usefixtures("store")
def test_up_listens_on_a_hosts_name(started: list[Command], runtime: Path) -> None:
    up = _start(started, "up", "--host", "localhost", "--port", 0, "--runtime", runtime)
    up.until("^ready in")
    address = up.until(r"mesh +(localhost:\d+)")[1]
    assert _double(address, [1, 2, 3]) == [2, 4, 6]
    assert up.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("command", "variable", "value", "why"),
    [
        (("up",), "ORTMESH_TELEMETRY_METRICS_PORT", "x", "metrics_port (ORTMESH_TELEMETRY_METRICS_PORT)"),
        (("up",), "ORTMESH_GATEWAY_DRAIN_SECONDS", "soon", "drain_seconds (ORTMESH_GATEWAY_DRAIN_SECONDS)"),
        (("up",), "ORTMESH_SERVICE_GRACE_SECONDS", "-1", "grace_seconds (ORTMESH_SERVICE_GRACE_SECONDS)"),
        (("gateway",), "ORTMESH_GATEWAY_GRACE_SECONDS", "x", "grace_seconds (ORTMESH_GATEWAY_GRACE_SECONDS)"),
        (
            ("gateway",),
            "ORTMESH_GATEWAY_BACKENDS",
            "smell=unix:/x",
            "backends (ORTMESH_GATEWAY_BACKENDS): 'smell=unix:/x'",
        ),
        (("up",), "ORTMESH_MODELS", "~nobody-here/x", "models (ORTMESH_MODELS): '~nobody-here/x'"),
        (("pull",), "ORTMESH_MODELS", "~nobody-here/x", "models (ORTMESH_MODELS): '~nobody-here/x'"),
        (("models", "remove", "x"), "ORTMESH_MODELS", "~nobody-here/x", "models (ORTMESH_MODELS)"),
    ],
)
@pytest.mark.usefixtures("store")
def test_a_variable_that_cannot_be_used_is_told_in_words(
    command: tuple[str, ...],
    variable: str,
    value: str,
    why: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    runtime: Path,
) -> None:
    monkeypatch.setenv(variable, value)
    result = run(*command, *(("--runtime", runtime, "--port", 0) if command == ("up",) else ()))
    assert result.exit_code == 1
    assert f"error: {why}" in result.stderr
    assert len(result.stderr.splitlines()) <= 2


@pytest.mark.parametrize("variable", ["ORTMESH_TELEMETRY_METRICS_PORT", "ORTMESH_SERVICE_DRAIN_SECONDS"])
def test_so_it_is_before_serve_becomes_the_service(
    variable: str, started: list[Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "abc")
    process = _start(started, "serve", "nlp", "--port", 0)
    assert process.end() == 1
    (line,) = process.lines
    assert line.startswith("error: ")
    assert f"({variable}): Input should be a valid" in line
    assert line.endswith(", not 'abc'")


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--threads", 0, "threads (ORTMESH_SERVICE_THREADS)"),
        ("--port", 70_000, "'127.0.0.1:70000' is neither HOST:PORT nor unix:/path"),
        ("--metrics-port", 70_000, "metrics_port (ORTMESH_TELEMETRY_METRICS_PORT)"),
    ],
)
def test_so_are_the_options_of_serve(option: str, value: int, why: str, started: list[Command]) -> None:
    process = _start(started, "serve", "nlp", option, value)
    assert process.end() == 1
    (line,) = process.lines
    assert line.startswith("error: ")
    assert why in line


def test_a_port_that_is_none_is_a_mistake_of_usage(run: Run) -> None:
    for option in ("--port", "--metrics-port"):
        assert run("up", option, 65536).exit_code == 2


@pytest.mark.usefixtures("store")
def test_a_second_up_in_the_same_folder_is_refused(started: list[Command], runtime: Path, run: Run) -> None:
    up = _start(started, "up", "--port", 0, "--runtime", runtime)
    up.until("nlp")
    second = run("up", "--port", 0, "--runtime", runtime)
    assert second.exit_code == 1
    assert f"another mesh (process {up.process.pid})" in second.stderr
    assert up.end(signal.SIGINT) == 0


@pytest.mark.usefixtures("store")
def test_a_port_in_use_is_told_before_anything_starts(run: Run, runtime: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = run("up", "--port", port, "--runtime", runtime)
    assert result.exit_code == 1
    assert f"port {port} on 127.0.0.1 is used by another program" in result.stderr
    assert not result.stdout


def test_a_gateway_without_a_service_is_refused(run: Run) -> None:
    result = run("gateway", "--listen", "127.0.0.1:0")
    assert result.exit_code == 1
    assert "name each with --backend FAMILY=ADDRESS" in result.stderr


def test_without_models_up_says_to_pull(run: Run, tmp_path: Path) -> None:
    result = run("up", "--models", tmp_path)
    assert result.exit_code == 1
    assert "run `ortmesh pull`" in result.stderr


@pytest.mark.usefixtures("store")
def test_a_part_that_cannot_start_ends_up_with_the_reason(
    started: list[Command], runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTMESH_GATEWAY_ENVOY", "/nowhere/envoy")
    up = _start(started, "up", "--port", 0, "--runtime", runtime)
    assert up.end() == 1
    shown = "\n".join(up.lines)
    assert "error: proxy does not start (3 attempts), it exited with code 1" in shown
    assert "/nowhere/envoy" in shown


@pytest.mark.usefixtures("store")
def test_a_mesh_that_takes_too_long_is_given_up(started: list[Command], runtime: Path) -> None:
    up = _start(started, "up", "--port", 0, "--runtime", runtime, "--timeout", 0.2)
    assert up.end() == 1
    assert "error: not ready within 0.2 s: nlp, gateway, proxy; a longer time is --timeout" in up.lines


def _rewrite(store: Store, name: str, **changes: object) -> None:
    """Changes a card that is in the store, as a person does."""
    path = store.folder(name, "1") / CARD_FILE
    write_card(read_card(path).model_copy(update=changes), path)


def test_models_that_can_not_become_ready_end_up_with_the_reasons(
    started: list[Command], runtime: Path, store: Store
) -> None:
    """At once, and not after the five minutes that a start may take."""
    add(store.folder("double", "1") / "model.onnx", "damaged", "nlp", store)
    add(store.folder("double", "1") / "model.onnx", "other", "speech", store)
    _rewrite(store, "double", runtime=Runtime(require="tensorrt"))
    damaged = store.folder("damaged", "1") / "model.onnx"
    damaged.unlink()
    damaged.write_bytes(b"no graph")
    up = _start(started, "up", "--port", 0, "--runtime", runtime)
    assert up.end() == 1
    shown = "\n".join(up.lines)
    assert "error: nlp has nothing to serve, each of its models failed:" in up.lines
    assert re.search(r"^  double@1: the card requires tensorrt", shown, re.MULTILINE)
    assert re.search(r"^  damaged@1: .*Protobuf parsing failed", shown, re.MULTILINE)
    assert f"mend a model's card and files below {store.root}" in shown
    assert "ortmesh models remove damaged@1" in shown
    assert "to serve the others meanwhile: ortmesh up --families speech" in up.lines


def test_what_is_tried_again_is_waited_for_and_what_is_not_is_told(
    started: list[Command], runtime: Path, store: Store
) -> None:
    """A model for which there was no memory may have it later, here since its card is changed."""
    add(store.folder("double", "1") / "model.onnx", "bound", "nlp", store)
    _rewrite(store, "bound", runtime=Runtime(require="tensorrt"))
    with (store.folder("double", "1") / "huge").open("wb") as huge:
        huge.truncate(1 << 42)
    _rewrite(store, "double", files={"model.onnx": None, "huge": None})
    up = _start(started, "up", "--port", 0, "--runtime", runtime)
    up.until(r"nlp +│ waits for what failed and is tried again: double@1: its files have 4\.4e\+06 MB")
    (store.folder("double", "1") / "huge").unlink()
    _rewrite(store, "double", files={"model.onnx": None})
    up.until(r"^ready in")
    up.until(r"^not served: bound@1: the card requires tensorrt")
    assert up.end(signal.SIGINT) == 0


@pytest.mark.usefixtures("store")
def test_serve_runs_one_service_in_this_process(started: list[Command]) -> None:
    serve = _start(started, "serve", "nlp", "--port", 0, "--threads", 1)
    address = serve.until(r"listens on (127\.0\.0\.1:\d+)")[1]
    serve.until("double@1 is ready")
    assert _double(address, [1, 2, 3]) == [2, 4, 6]
    assert serve.end(signal.SIGTERM) == 0


@pytest.mark.usefixtures("store")
def test_gateway_runs_before_a_service_that_is_there(started: list[Command], runtime: Path) -> None:
    serve = _start(started, "serve", "nlp", "--listen", f"unix:{runtime}/nlp.sock")
    gateway = _start(started, "gateway", "--listen", "127.0.0.1:0", "--backend", f"nlp=unix:{runtime}/nlp.sock")
    address = gateway.until(r"listens on (127\.0\.0\.1:\d+)")[1]
    asyncio.run(until_serving(address, [""]))
    assert _double(address, [1, 2, 3]) == [2, 4, 6]
    assert gateway.end(signal.SIGTERM) == 0
    assert serve.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["smell"], "'smell' is no family"),
        (["nlp", "--port", "1", "--listen", "127.0.0.1:1"], "--port or --listen, not both"),
    ],
)
def test_serve_refuses_what_it_cannot_do(arguments: list[str], why: str, run: Run) -> None:
    result = run("serve", *arguments)
    assert result.exit_code == 1
    assert why in result.stderr


def test_the_version_is_told(run: Run) -> None:
    assert re.fullmatch(r"ortmesh \d+\.\d+\.\d+\n", run("--version").stdout)


def test_the_first_steps_are_told_without_arguments(run: Run) -> None:
    shown = run().output
    for command in ("ortmesh pull", "ortmesh up", "ortmesh call nlp embed"):
        assert command in shown


def test_the_base_install_says_what_the_command_needs() -> None:
    """The base is the client alone: its packages do not include Typer."""
    code = "import sys; sys.modules['typer'] = None; from ortmesh.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "the ortmesh command needs typer: pip install '.[all]' in the checkout\n"
