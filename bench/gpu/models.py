"""Models of the bench: cards of a store with another runtime, their sessions and samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.gpu.host import HostStream
from ortmesh.catalogue import card as shown
from ortmesh.serving.cards import Card, Runtime, read_card
from ortmesh.serving.executor.binding import Runner
from ortmesh.serving.executor.buckets import buckets_of
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.measure import batch
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.types import Array, Item, Tensors
from ortmesh.serving.warmup import Capture, candidates

THREADS = 2
MINILM, EFFICIENTNET, CENTERFACE = "all-minilm-l6-v2-f16", "efficientnet-lite0", "centerface"


@dataclass(frozen=True, slots=True)
class Bench:
    """On what it runs."""

    store: Path
    provider: str
    """`cuda`, or `cpu` to try the code."""
    work: Path
    """A folder for what is made on the spot."""
    seconds: float
    """How long throughputs are measured, each."""
    rest_seconds: float
    """How long after a burst memory is looked at."""

    def card(self, name: str, **runtime: Any) -> tuple[Card, Path]:
        """A card of the store, to run on the provider, and its folder."""
        (folder,) = (self.store / name).iterdir()
        card = read_card(folder / "card.yaml")
        where = {"require": "cuda"} if self.provider == "cuda" else {"providers": ["cpu"]}
        buckets = shown(name).runtime.buckets
        given = {"buckets": buckets, "engine": shown(name).runtime.engine, **runtime}
        return card.model_copy(update={"runtime": Runtime(**where | given)}), folder

    def open(self, name: str, *, record: bool = False) -> Opened:
        """A model of the store on the provider."""
        card, folder = self.card(name, cuda_graph=record)
        return self.open_file(card, folder / card.graph)

    def open_file(self, card: Card, path: Path) -> Opened:
        """A graph on the provider, by a card."""
        return Opened(card, path, self.session(card, path))

    def session(self, card: Card, path: Path) -> InterruptibleSession:
        """A session on the provider; on the CPU it believes that it has a device's stream."""
        session = Sessions(card.runtime, THREADS).open(path)
        if self.provider == "cpu":
            session.stream, session.records = HostStream(), card.runtime.records
        return session


class Opened:
    """A session with its runner and a sample."""

    def __init__(self, card: Card, path: Path, session: InterruptibleSession) -> None:
        self.card, self.path, self.session = card, path, session
        self.signature: Signature = signature_of(session.get_inputs(), session.get_outputs(), card)
        self.runner = Runner(session, self.signature, buckets_of(card, pad_sizes=self.signature.padded))
        self.example: Tensors = next(candidates(self.signature))[0]

    def feeds(self, rows: int, size: int = 0, seed: int = 0) -> dict[str, Array]:
        """A batch of so many different rows."""
        feeds = batch(self.signature, self.example, rows, size or 1)
        random = np.random.default_rng(seed)
        return {name: self._shuffled(name, array, random) for name, array in feeds.items()}

    def _shuffled(self, name: str, array: Array, random: np.random.Generator) -> Array:
        info = self.signature.inputs[name]
        low, high = info.sample_range or (0.0, 1.0)
        if info.datatype == "BF16":
            return array
        if info.dtype.kind == "f":
            return random.uniform(low, high, array.shape).astype(info.dtype)
        return random.integers(int(low), max(int(high), int(low) + 1), array.shape).astype(info.dtype)

    def plain(self, feeds: Tensors, outputs: tuple[str, ...] = ()) -> list[Array]:
        """As ONNX Runtime runs by itself."""
        return self.session.run(outputs or list(self.signature.outputs), feeds)

    def items(self, feeds: Tensors) -> list[Item]:
        """A batch as items of a row each."""
        rows = len(next(iter(feeds.values())))
        singles = [{name: array[at : at + 1] for name, array in feeds.items()} for at in range(rows)]
        answer = Capture()
        size = max((array.shape[-1] for array in feeds.values()), default=0) if self.signature.padded else 0
        return [Item(each, answer=answer, owner=answer, deadline=math.inf, size=size) for each in singles]


def on_cpu(opened: Opened, feeds: Tensors) -> list[Array]:
    """What the same graph gives on the CPU."""
    return cpu_session(opened.path).run(list(opened.signature.outputs), feeds)


@cache
def cpu_session(path: Path) -> InterruptibleSession:
    """One a file."""
    return Sessions(Runtime(providers=["cpu"]), THREADS).open(path)


def seconds_of(run: Callable[[], object], budget: float = 0.15, least: int = 5) -> float:
    """The median of a run, after three that are not counted."""
    for _ in range(3):
        run()
    taken: list[float] = []
    until = time.perf_counter() + budget
    while len(taken) < least or (time.perf_counter() < until and len(taken) < 1000):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def exact_copy(path: Path, target: Path) -> Path:
    """A graph of 16 bits with weights of 32."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    onnx.save(model, target)
    return target


def bfloat16_graph(target: Path) -> tuple[Card, Path]:
    """y = x · W in bfloat16 [rows, 64] → [rows, 64], W a rotation of the columns."""
    weight = np.roll(np.eye(64, dtype=np.float32), 1, axis=1)
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["wide", "w"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.BFLOAT16),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["rows", 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "bf16", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), target)
    return Card(name="bf16", family="nlp"), target
