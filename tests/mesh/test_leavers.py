"""Callers that leave: what they asked for is not computed, and nothing is held for them.

A small mesh of its own, whose one model works for as long as a caller says, and whose metrics can be read.
"""

from __future__ import annotations

import random
import re
import shutil
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from prometheus_client.parser import text_string_to_metric_families

from ortmesh.client import channel_options
from ortmesh.descriptors import oip
from ortmesh.models.v1 import models_pb2
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.add import add
from ortmesh.serving.store import Store
from tests.mesh.bad import neighbours
from tests.mesh.conftest import SHORT_DRAIN, START_SECONDS, RunningMesh
from tests.mesh.slow import COLUMNS, slow

AT_ONCE = 64
"""Calls in flight when one of them, any, is left."""
BUSY_ROUNDS = 80_000
"""Some three seconds, by when all others mostly have come and left again; else it is tried with twice as many."""
TRIES = 4
MEBIBYTE = 1024 * 1024
MAX_GROWTH_BYTES = 160 * MEBIBYTE
"""What a process may keep after its first thousand calls: heaps of its threads. Were the large tensors of the calls
kept, it were 200 MiB."""

INFER = "/inference.GRPCInferenceService/ModelInfer"
DETECT_LANGUAGE = "/ortmesh.nlp.v1.NlpService/DetectLanguage"
GET_MODEL = "/ortmesh.models.v1.ModelService/GetModel"
WATCH_MODELS = "/ortmesh.models.v1.ModelService/WatchModels"


class Place:
    """The mesh with one language service, and what can be read of that."""

    def __init__(self, running: RunningMesh) -> None:
        self.running = running
        line = running.until_line(r"^nlp .*metrics on http")
        self._metrics = line.split("metrics on ")[1].strip()
        (self.pid,) = running.pids("ortmesh_nlp")

    def count(self, sample: str, **labels: str) -> int:
        """The sum of a metric's samples with these labels."""
        with urllib.request.urlopen(self._metrics, timeout=60) as answer:
            text = answer.read().decode()
        return int(
            sum(
                each.value
                for family in text_string_to_metric_families(text)
                for each in family.samples
                if each.name == sample and labels.items() <= each.labels.items()
            )
        )

    def taken(self) -> int:
        """Items that the model's executor has taken."""
        return self.count("ortmesh_queue_duration_seconds_count", model="slow")

    def ran(self) -> int:
        """Rows that the model has computed."""
        return self.count("ortmesh_batch_size_sum", model="slow")

    def dropped(self) -> int:
        """Items that nobody waited for any more when their turn came."""
        return self.count("ortmesh_items_dropped_total", model="slow", reason="cancelled")

    def until_in_flight(self, calls: int, enough: Callable[[], bool] = lambda: False) -> None:
        """Returns once so many calls of the test are in flight, or it is `enough`: one more is the gateway's own watch
        of the models."""
        self.running.until(lambda: enough() or self.count("ortmesh_calls_in_flight") == calls + 1)

    def resident_bytes(self) -> int:
        """The service's memory now."""
        found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


@pytest.fixture(scope="module", params=["native", "grpcio"])
def place(request: pytest.FixtureRequest, store: Store) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    models = Store(folder / "models")
    add(slow(folder / "added"), "slow", "nlp", models)
    shutil.copytree(store.root / "lid-176", models.root / "lid-176")
    running = RunningMesh(models.root, folder / "run", request.param, "--metrics-port", "0", **SHORT_DRAIN)
    try:
        running.until_line(r"^ready in", seconds=START_SECONDS)
        yield Place(running)
    finally:
        assert running.stop() == 0
        shutil.rmtree(folder)


@pytest.fixture(params=["gateway", "direct"])
def address(request: pytest.FixtureRequest, place: Place) -> str:
    """Both ways to the service."""
    return place.running.address if request.param == "gateway" else place.running.socket("nlp")


class Caller:
    """One connection; calls begin at once and are waited for, or left, later."""

    def __init__(self, address: str) -> None:
        self.streams = 0
        """That were begun."""
        self._channel = grpc.insecure_channel(address, [*channel_options(), ("grpc.use_local_subchannel_pool", 1)])
        self._infer = self._method(INFER, oip("ModelInferResponse"))
        self._detect = self._method(DETECT_LANGUAGE, nlp_pb2.DetectLanguageResponse)
        self._get_model = self._method(GET_MODEL, models_pb2.Model)
        self._watch: Any = self._channel.unary_stream(
            WATCH_MODELS,
            request_serializer=models_pb2.WatchModelsRequest.SerializeToString,
            response_deserializer=models_pb2.WatchModelsResponse.FromString,
        )

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def any_call(self, chance: random.Random) -> Any:
        """A call of some kind: most with small tensors, some with large ones, a typed task's, a stream."""
        kind = chance.random()
        if kind < 0.1:
            return self.watch_models()
        if kind < 0.2:
            return self.detect_language()
        return self.infer(rows=100 if kind < 0.25 else 1, rounds=chance.randrange(10))

    def executors(self) -> int:
        """How many batches of the slow model run at once: what was quicker when it was loaded."""
        return int(self._get_model(models_pb2.GetModelRequest(model="slow"), timeout=60).batching.executors)

    def infer(self, rows: int = 1, rounds: int = 0) -> Any:
        """Inference of so many rows of 4 KiB on the slow model."""
        request: Any = oip("ModelInferRequest")(model_name="slow")
        x, most = np.ones((rows, COLUMNS), np.float32), np.full((rows, 1), rounds, np.int64)
        for name, kind, array in (("x", "FP32", x), ("rounds", "INT64", most)):
            request.inputs.add(name=name, datatype=kind, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        return self._infer.future(request, timeout=60)

    def detect_language(self) -> Any:
        """A call of a typed task."""
        return self._detect.future(nlp_pb2.DetectLanguageRequest(texts=["Wo ist der Bahnhof?"]), timeout=60)

    def watch_models(self) -> Any:
        """A stream that does not end by itself."""
        self.streams += 1
        return self._watch(models_pb2.WatchModelsRequest(), timeout=60)

    def _method(self, path: str, answer: type[Message]) -> Any:
        return self._channel.unary_unary(
            path,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=answer.FromString,
        )


def test_what_callers_that_left_had_asked_for_is_never_run(place: Place, address: str) -> None:
    """A model is busy, fifty calls wait for it, forty of them leave: the rows that ran are those of the ten. Of the
    twenty of many rows some parts each were waiting: one more than the model has executors."""
    with Caller(address) as caller:
        for rounds in (BUSY_ROUNDS * 2**number for number in range(TRIES)):
            ran, dropped = place.ran(), place.dropped()
            answered, was_busy = leave_while_it_is_busy(place, caller, rounds)
            if was_busy:
                break
    assert was_busy, "the model was done before all had left"
    parts = place.dropped() - dropped - 20
    assert parts % 20 == 0
    assert parts >= 2 * 20
    assert place.ran() - ran == answered


def leave_while_it_is_busy(place: Place, caller: Caller, rounds: int) -> tuple[int, bool]:
    """How many calls stayed and were answered, and whether the model was busy until the service had heard that all
    others had left."""
    taken, busy = place.taken(), list[Any]()

    def is_over() -> bool:
        return any(call.done() for call in busy)

    for number in range(1, caller.executors() + 1):  # one after the other, as one batch they would keep one busy
        busy.append(caller.infer(rounds=rounds))
        place.running.until(lambda number=number: place.taken() == taken + number)  # type: ignore[misc]
    leaving = [caller.infer(rows=512 if number % 2 else 1) for number in range(40)]
    staying = [caller.infer() for _ in range(10)]
    place.until_in_flight(50 + len(busy), is_over)
    for call in leaving:
        call.cancel()
    staying.append(caller.infer())  # behind the cancellations, on the same connection
    caller.detect_language().result()  # another model's: when it is answered they have been heard
    was_busy = not is_over()
    assert all(len(call.result().raw_output_contents[0]) == 4 * COLUMNS for call in [*busy, *staying])
    place.until_in_flight(0)
    return len(busy) + len(staying), was_busy


def test_ten_thousand_calls_that_are_left_at_random_moments_leave_nothing_behind(place: Place, address: str) -> None:
    """On each way, by each adapter: no call is in flight for anybody, the memory is given back, and a caller who stays
    is answered all the time; that no lease is left tells the test after this one."""
    storm(address, 0)  # heaps of threads and the like
    place.until_in_flight(0)
    before = place.resident_bytes()
    with Caller(address) as other, neighbours(lambda: other.infer().result()):
        storms = [storm(address, seed) for seed in range(10)]
    place.until_in_flight(0)
    codes, streams = sum((codes for codes, _ in storms), Counter()), sum(streams for _, streams in storms)
    assert codes.total() - codes[grpc.StatusCode.OK] >= streams > 0, "a stream ended by itself"
    place.running.until(lambda: place.running.envoy("http.mesh.downstream_rq_active") == 0)
    place.running.until(lambda: place.running.envoy("cluster.nlp.upstream_rq_active") == 0)
    print(f"{dict(codes)}, memory {before / MEBIBYTE:.0f} -> {place.resident_bytes() / MEBIBYTE:.0f} MiB")
    assert place.resident_bytes() < before + MAX_GROWTH_BYTES
    with Caller(address) as caller:
        assert caller.infer().result()
        assert caller.detect_language().result().results[0].detected.languages[0].code == "de"


def storm(address: str, seed: int) -> tuple[Counter[grpc.StatusCode], int]:
    """A thousand calls of all kinds, each left at a random moment of its life; how they ended, and how many of them
    were streams.

    On connections of their own: Envoy ends one on which most of 500 calls were left, and a service one on which
    twenty were left before it had heard of them, as they should.
    """
    chance, codes = random.Random(seed), Counter[grpc.StatusCode]()
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(address)) for _ in range(4)]
        alive: list[Any] = []
        for number in range(1000):
            alive.append(callers[number % 4].any_call(chance))
            if len(alive) == AT_ONCE:
                call = alive.pop(chance.randrange(AT_ONCE))
                call.cancel()
                codes[call.code()] += 1
        for call in alive:
            call.cancel()
            codes[call.code()] += 1
    return codes, sum(caller.streams for caller in callers)


def test_no_lease_is_left_of_all_those_calls(place: Place) -> None:
    """A model is unloaded when the last call that was using it has ended."""
    after = len(place.running.lines)
    Store(place.running.store).remove("slow", "1")
    place.running.until_line(r"nlp .* slow@1 is unloaded", after=after)
