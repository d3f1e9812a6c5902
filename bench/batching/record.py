"""Records arrivals of real calls: starts a service, lets clients loose on it that behave as applications do.

    python -m bench.batching.record [NAME ...] --models STORE

What each trace is, and the clients that made it, is said in `CASES`. Texts and headings are those of the Python
language reference, which comes with Python; pages are drawn with the same text.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.batching import material
from bench.batching.traces import FOLDER, read
from ortmesh.client import Client
from ortmesh.models.v1.models_pb2 import MODEL_STATE_READY, ListModelsRequest
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.vision.v1.vision_pb2 import Image, ReadTextRequest

CHECKOUT = Path(__file__).parents[2]
READY_SECONDS = 60.0
TEXTS_A_REQUEST = 32
"""What an indexing job sends at once."""


class Caller(threading.Thread):
    """One client, who calls until the time is over. Each has a stream of random numbers of its own."""

    def __init__(self, name: str, act: Callable[[Caller], None], mesh: Client, seconds: float) -> None:
        super().__init__(name=name, daemon=True)
        self.random = random.Random(name)
        self.failed = 0
        self._act = act
        self._mesh = mesh
        self._until = time.monotonic() + seconds

    def run(self) -> None:
        """Acts again and again."""
        while time.monotonic() < self._until:
            self._act(self)

    def pause(self, mean: float) -> None:
        """Thinks: exponential, as independent users do."""
        time.sleep(min(self.random.expovariate(1 / mean), max(0.0, self._until - time.monotonic())))

    def embed(self, texts: list[str], timeout: float) -> None:
        """Asks for the vectors of some texts."""
        self._call(self._mesh.nlp.Embed, EmbedRequest(texts=texts), timeout)

    def read(self, page: bytes, timeout: float) -> None:
        """Asks what stands on a page."""
        self._call(self._mesh.vision.ReadText, ReadTextRequest(image=Image(encoded=page)), timeout)

    def _call(self, method: Callable[..., object], request: object, timeout: float) -> None:
        try:
            method(request, timeout=timeout, metadata=(("x-ortmesh-caller", self.name),))
        except grpc.RpcError:
            self.failed += 1


def index(caller: Caller) -> None:
    """Every few seconds a document has changed: its paragraphs are embedded, 32 a request, one after the other."""
    caller.pause(3.0)
    paragraphs = caller.random.choice(material.documents()).paragraphs
    for first in range(0, len(paragraphs), TEXTS_A_REQUEST):
        caller.embed(list(paragraphs[first : first + TEXTS_A_REQUEST]), 30.0)


def search(caller: Caller) -> None:
    """Somebody types a few words and waits for results."""
    caller.pause(2.5)
    caller.embed([caller.random.choice(caller.random.choice(material.documents()).headings)], 2.0)


def ask(caller: Caller) -> None:
    """The demo's page: a question and the passages that may answer it, in one request; then the visitor reads."""
    document = caller.random.choice(material.documents())
    passages = caller.random.sample(document.paragraphs, min(len(document.paragraphs), caller.random.randint(4, 12)))
    caller.embed([caller.random.choice(document.headings), *passages], 5.0)
    caller.pause(6.0)


def scan(caller: Caller) -> None:
    """Pages from a scanner, one after another."""
    document = caller.random.choice(material.documents())
    caller.read(material.page(document, caller.random.randint(18, 40)), 60.0)


def photograph(caller: Caller) -> None:
    """Somebody holds a camera to a notice of a few lines."""
    caller.pause(4.0)
    document = caller.random.choice(material.documents())
    caller.read(material.page(document, caller.random.randint(2, 6)), 20.0)


@dataclass(frozen=True)
class Case:
    """A trace to record."""

    name: str
    family: str
    model: str
    """Whose items are recorded."""
    serves: tuple[str, ...]
    seconds: float
    callers: Mapping[str, Callable[[Caller], None]]


MINILM = ("all-minilm-l6-v2",)
OCR = ("ppocr-v6-det", "ppocr-v6-rec", "ppocr-v6-cls")
CASES = (
    Case(
        name="search-beside-indexing",
        family="nlp",
        model=MINILM[0],
        serves=MINILM,
        seconds=60.0,
        callers={"index": index} | {f"search-{number}": search for number in range(12)},
    ),
    Case(
        name="questions",
        family="nlp",
        model=MINILM[0],
        serves=MINILM,
        seconds=40.0,
        callers={f"visitor-{number}": ask for number in range(20)},
    ),
    Case(
        name="pages",
        family="vision",
        model=OCR[1],
        serves=OCR,
        seconds=90.0,
        callers={"scanner": scan} | {f"camera-{number}": photograph for number in range(4)},
    ),
)


def main() -> None:
    """Records the named traces, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench.batching.record")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(case.name for case in CASES))
    parser.add_argument("--models", type=Path, required=True, help="a store with the default models")
    chosen = parser.parse_args()
    for case in CASES:
        if not chosen.names or case.name in chosen.names:
            record(case, chosen.models)
            arrivals = read(case.name)
            print(f"{case.name}: {len(arrivals)} items in {arrivals[-1].seconds:.0f} s")


def record(case: Case, store: Path, folder: Path = FOLDER) -> None:
    """One trace into its file in the folder."""
    with serving(case, store, folder / f"{case.name}.csv") as address, Client(address) as mesh:
        wait_for(case.serves, mesh)
        callers = [Caller(name, act, mesh, case.seconds) for name, act in case.callers.items()]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        print(f"{case.name}: {sum(caller.failed for caller in callers)} calls failed")


@contextlib.contextmanager
def serving(case: Case, store: Path, file: Path) -> Iterator[str]:
    """The service with its recorder, on a Unix socket; when it has ended, the file is there."""
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as folder:
        address = f"unix:{folder}/s"
        module = [sys.executable, "-m", "bench.batching.recording", case.family, case.model, str(file)]
        process = subprocess.Popen(
            [*module, "--listen", address, "--models", str(store), "--only", *case.serves],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "services")))},
        )
        try:
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def wait_for(names: tuple[str, ...], mesh: Client) -> None:
    """Until all these models are ready. TimeoutError."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(grpc.RpcError):
            models = mesh.models.ListModels(ListModelsRequest()).models
            if {model.name for model in models if model.state == MODEL_STATE_READY} >= set(names):
                return
        time.sleep(0.1)
    raise TimeoutError(f"not ready within {READY_SECONDS:g} s: {', '.join(names)}")


if __name__ == "__main__":
    main()
