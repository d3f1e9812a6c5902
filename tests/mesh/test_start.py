"""Starts under difficulties: a store that is being written, ports and sockets that others have or have left behind."""

from __future__ import annotations

import multiprocessing
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest

from ortmesh.client import Client
from ortmesh.descriptors import oip
from ortmesh.models.v1.models_pb2 import ListModelsRequest, ModelState
from ortmesh.serving.add import add
from ortmesh.serving.cards import read_card
from ortmesh.serving.store import Store
from tests.mesh.conftest import SHORT_DRAIN, RunningMesh
from tests.mesh.mixed import INFER, infer_request
from tests.serving import graphs

START_SECONDS = 60.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one, for sockets."""
    made = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def small(folder: Path) -> Store:
    """A store with one small model."""
    made = Store(folder / "models")
    add(graphs.double(folder / "added"), "doubler", "nlp", made)
    return made


@pytest.fixture(params=["native", "grpcio"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Service:
    """A language service as a process, and what it said."""

    def __init__(self, store: Store, adapter: str, listen: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "ortmesh_nlp", "--models", str(store.root), "--adapter", adapter]
        self.process = subprocess.Popen(
            [*command, "--listen", listen, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "ORTMESH_TELEMETRY_LOG_FORMAT": "text", "ORTMESH_SERVICE_DRAIN_SECONDS": "0"},
        )
        self.said: list[str] = []
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.said.append(line)
                self._heard.notify_all()
        self.process.stderr.close()

    def until_said(self, pattern: str) -> None:
        """Returns once a line matches."""
        with self._heard:
            heard = self._heard.wait_for(lambda: any(re.search(pattern, line) for line in self.said), START_SECONDS)
        assert heard, "".join(self.said)

    def end(self, number: signal.Signals | None = None) -> int:
        """Sends the signal, if any, and waits for the end; the exit code."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(START_SECONDS)
        self._reader.join()
        return code


@contextmanager
def serving(store: Store, adapter: str, listen: str, *arguments: str) -> Iterator[Service]:
    """A service that does not outlive the block."""
    service = Service(store, adapter, listen, *arguments)
    try:
        yield service
    except BaseException:
        print("".join(service.said))
        raise
    finally:
        service.process.kill()
        service.end()


def answers(address: str, model: str, x: Any) -> Any:
    """(the version that answered, its `y`)."""
    with grpc.insecure_channel(address) as channel:
        infer: Any = channel.unary_unary(
            INFER,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=oip("ModelInferResponse").FromString,
        )
        answer = infer(infer_request(model, x), timeout=60, wait_for_ready=True)
    return answer.model_version, np.frombuffer(answer.raw_output_contents[0], np.float32)


# A store that is being written


def scale(folder: Path, factor: int) -> Path:
    """y = factor x + 1000 factor: the product's factor lies in a file of weights, the sum's in the graph itself."""
    nodes = [onnx.helper.make_node("Mul", ["x", "w"], ["p"]), onnx.helper.make_node("Add", ["p", "c"], ["y"])]
    weights = {"w": np.full(4, factor, np.float32), "c": np.float32(1000 * factor)}
    path = graphs.write(folder, nodes, [graphs.tensor("x", ["n", 4])], [graphs.tensor("y", ["n", 4])], weights)
    model = onnx.load(path)
    path.unlink()
    onnx.save(
        model, path, save_as_external_data=True, location="weights.data", size_threshold=8, convert_attribute=False
    )
    return path


def write_on(root: Path, made: dict[str, Path]) -> None:
    """Installs five versions again and again, each time with the other factor, until its process is killed."""
    store, number = Store(root), 0
    cards = {source: read_card(source / "card.yaml") for source in made.values()}
    while True:
        source = made["three" if number % 2 else "two"]
        with store.staging() as staged:
            shutil.copytree(source, staged, dirs_exist_ok=True)
            store.install(cards[source].model_copy(update={"version": str(1 + number % 5)}), staged, replace=True)
        number += 1


@contextmanager
def being_written(store: Store, folder: Path) -> Iterator[None]:
    """A store into which another process installs versions of `scale` for as long as the block runs."""
    made = {}
    for name, factor in (("two", 2), ("three", 3)):
        shelf = Store(folder / name)
        add(scale(folder / f"{name}-made", factor), "scale", "nlp", shelf)
        made[name] = shelf.folder("scale", "1")
    writer = multiprocessing.get_context("spawn").Process(target=write_on, args=(store.root, made))
    writer.start()
    try:
        until(lambda: len(store.versions("scale")) == 5)
        yield
        assert writer.is_alive()
    finally:
        writer.kill()
        writer.join()
        writer.close()


def until(holds: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Returns once `holds()`; it is asked every 20 ms."""
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.02)


def test_a_store_that_is_being_written_is_served_whole(small: Store, folder: Path, adapter: str) -> None:
    """Versions are replaced while services start and serve, one lies there half copied, halves of others lie in the
    store's own temporary folder: every answer is of one version, and what is not whole is not served."""
    half = small.folder("half", "1")
    shutil.copytree(small.folder("doubler", "1"), half)
    (half / "card.yaml").write_text((half / "card.yaml").read_text().replace("name: doubler", "name: half"))
    model = (half / "model.onnx").read_bytes()
    (half / "model.onnx").unlink()
    shutil.copytree(half, small.root / ".tmp" / "scale-of-a-process-that-was-killed")
    address, x = f"unix:{folder}/s", np.ones((1, 4), np.float32)
    with being_written(small, folder):
        for _ in range(2):
            with serving(small, adapter, address):
                until(lambda: ModelState.MODEL_STATE_READY in states(address, "scale"))
                seen = {float(answers(address, "scale", x)[1][0]) for _ in range(100)}
                assert seen <= {2002.0, 3003.0}, "a graph of one version ran with the weights of another"
                assert states(address, "half") == []
    with serving(small, adapter, address):
        until(lambda: states(address, "scale") == [ModelState.MODEL_STATE_READY] * 5)
        (half / "model.onnx").write_bytes(model)
        until(lambda: states(address, "half") == [ModelState.MODEL_STATE_READY])


def states(address: str, name: str) -> list[int]:
    """The states of a model's versions; none while nobody answers."""
    with Client(address) as client:
        try:
            listed = client.models.ListModels(ListModelsRequest(), timeout=60)
        except grpc.RpcError:
            return []
    return [model.state for model in listed.models if model.name == name]


# Ports that somebody has


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_services_port_in_use_ends_it_with_the_port_named(small: Store, adapter: str) -> None:
    with taken_port() as port, serving(small, adapter, f"127.0.0.1:{port}") as service:
        assert service.end() == 1
    assert f"127.0.0.1:{port}" in service.said[-1]
    assert "ddress already in use" in service.said[-1]
    assert not any("Traceback" in line for line in service.said)


def test_a_port_of_metrics_in_use_ends_a_service_with_the_port_named(small: Store, folder: Path, adapter: str) -> None:
    with taken_port() as port, serving(small, adapter, f"unix:{folder}/s", "--metrics-port", str(port)) as service:
        assert service.end() == 1
    assert f"127.0.0.1:{port}" in service.said[-1]
    assert "ddress already in use" in service.said[-1]
    assert not any("Traceback" in line for line in service.said)


def test_a_port_of_metrics_in_use_is_told_before_any_part_starts(small: Store, folder: Path) -> None:
    with taken_port() as port:
        running = RunningMesh(small.root, folder / "run", "auto", "--metrics-port", str(port))
        assert running.wait() == 1
    assert len(running.lines) == 1
    assert f"port {port} on 127.0.0.1 is used by another program" in running.lines[0]
    assert "--metrics-port" in running.lines[0]


# Sockets of others, and of the dead


def test_a_socket_of_a_killed_service_is_taken_over_and_that_of_a_living_one_is_not(
    small: Store, folder: Path, adapter: str
) -> None:
    address, x = f"unix:{folder}/s", np.ones((1, 4), np.float32)
    with serving(small, adapter, address) as first:
        first.until_said("listens on")
        first.end(signal.SIGKILL)
    assert (folder / "s").is_socket()
    with serving(small, adapter, address) as second:
        second.until_said("doubler@1 is ready")
        with serving(small, adapter, address) as third:
            assert third.end() == 1
        assert "another process listens on this socket" in third.said[-1]
        assert answers(address, "doubler", x)[1].tolist() == [2, 2, 2, 2]


def test_a_mesh_that_was_killed_is_started_anew_in_its_folder(small: Store, folder: Path) -> None:
    """However `ortmesh up` ends, its parts end too; a new one need not wait for that."""
    first = RunningMesh(small.root, folder / "run", "auto", **SHORT_DRAIN)
    first.until_line(r"^ready in", seconds=START_SECONDS)
    pids = [os.pidfd_open(pid) for pid in first.pids("")]
    first.process.kill()
    first.wait()
    second = RunningMesh(small.root, folder / "run", "auto", **SHORT_DRAIN)
    try:
        second.until_line(r"^ready in", seconds=START_SECONDS)
        assert answers(second.address, "doubler", np.ones((1, 4), np.float32))[1].tolist() == [2, 2, 2, 2]
        for pid in pids:
            assert select.select([pid], [], [], START_SECONDS)[0], "a part of the killed mesh still runs"
            os.close(pid)
    finally:
        assert second.stop() == 0
