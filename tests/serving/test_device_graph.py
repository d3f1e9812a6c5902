"""Texts as a GPU generates them, on a CPU: the host's memory stands in for the device's, all else is the product's."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.gpu.host import HostStream
from ortmesh.catalogue.recipes._gguf import in_16_bits
from ortmesh.catalogue.recipes._nbits import rounded
from ortmesh.serving.cards import Card, EngineSettings, Runtime
from ortmesh.serving.executor.engine import admission, device_graph, device_runs
from ortmesh.serving.executor.engine.cache import CacheShape, HostCache, Place
from ortmesh.serving.executor.engine.device_cache import DeviceCache
from ortmesh.serving.executor.engine.device_graph import NotOnDevice
from ortmesh.serving.executor.engine.engine import open_graph
from ortmesh.serving.executor.engine.graph import HostGraph
from ortmesh.serving.executor.engine.probe import probe
from ortmesh.serving.executor.engine.slots import Held
from ortmesh.serving.executor.interruptible import UNRECORDED, InterruptibleSession
from ortmesh.serving.executor.room import ALIGNMENT
from ortmesh.serving.executor.sessions import ProviderMissing, Sessions
from ortmesh.serving.loaded import load
from ortmesh.serving.types import NoMeter
from ortmesh.serving.warmup import Mode
from tests.nlp.tiny_llama import write_tiny_llama
from tests.serving.test_engine import Engine, ask, prompt

WINDOW = 32
LONG = EngineSettings(slots=6, context=160, tokens=960)


@pytest.fixture(scope="module", params=[rounded, in_16_bits], ids=["f32", "f16"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"), kind=request.param) / "model.onnx"


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_graph, "WINDOW", WINDOW)


class Device(Sessions):
    """Opens sessions that believe their stream is a GPU's, and name the runs that they record or replay."""

    def __init__(self, *, record: bool = True) -> None:
        super().__init__(Runtime(), 1)
        self.stream = HostStream()
        self.record = record
        self.runs: list[int] = []

    def open(self, path: Path) -> InterruptibleSession:
        session = super().open(path)
        session.stream, session.records = self.stream, self.record
        begin = session.begin_with_iobinding

        def begun(binding: Any, recorded: int = UNRECORDED) -> None:
            self.runs.append(recorded)
            begin(binding, UNRECORDED)

        session.begin_with_iobinding = begun  # type: ignore[method-assign]
        return session


Start = Callable[..., Engine]


@pytest.fixture
def start(model: Path) -> Iterator[Start]:
    running: list[Engine] = []

    def started(sessions: Sessions | None = None, settings: EngineSettings = LONG, **options: Any) -> Engine:
        running.append(Engine(model, settings, sessions=sessions, **options))
        return running[-1]

    yield started
    for each in running:
        each.stop()


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
def test_texts_are_those_of_the_cpu(start: Start, record: bool) -> None:
    """Many at once: prompts of one token, of a chunk, one more and one less, of nearly all that a text may have."""
    lengths = [1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 100, 150, 156, 5, WINDOW, 130, 3]
    asks = [ask(seed, length=length, tokens=min(20, 160 - length)) for seed, length in enumerate(lengths)]
    device = Device(record=record)
    found = [heard.wait().tokens for heard in start(device).ask_all(asks)]
    assert found == [heard.wait().tokens for heard in start().ask_all(asks)]
    assert (max(device.runs) > 0) == record


def test_a_step_and_a_window_are_recorded_at_their_second_run(start: Start) -> None:
    device = Device()
    engine = start(device)
    engine.ask(ask(1, length=1, tokens=6)).wait()
    assert device.runs == [UNRECORDED, 1, 1, 1, 1, 1], "a step is always the same run"
    engine.ask_all([ask(seed, length=100, tokens=2) for seed in (2, 3)])[1].wait()
    assert len(set(device.runs)) == 3, "and so is a window, whatever the slot"


def test_what_begins_alike_is_copied_on_the_device(start: Start) -> None:
    engine = start(Device())
    alone = start().ask(ask(3, length=100, tokens=9)).wait()
    first, again = engine.ask(ask(3, length=100, tokens=9)).wait(), engine.ask(ask(3, length=100, tokens=9)).wait()
    assert first.tokens == again.tokens == alone.tokens
    assert (first.cached, again.cached) == (0, 99)


def test_warm_up_finds_that_texts_are_independent(start: Start) -> None:
    assert start(Device(), warm_up=True).found == ""


def test_a_step_brings_the_logits_of_texts_alone(model: Path) -> None:
    device = Device()
    graph = open_graph(device.open(model))
    slots = graph.slots(slots=6, length=64)
    probe(graph, slots)
    device.stream.read_bytes = 0
    graph.step(slots, [1, 2])
    assert device.stream.read_bytes == 2 * 4 * graph.vocabulary
    graph.read(slots, 3, [1, 2, 3])
    assert device.stream.read_bytes == 2 * 4 * graph.vocabulary


def spoil(session: InterruptibleSession, fails: Callable[[int], bool], says: str, spoilt: list[int]) -> None:
    """From now on these recordings fail; which did, is noted."""
    begin = session.begin_with_iobinding

    def begun(binding: Any, recorded: int = UNRECORDED) -> None:
        if fails(recorded):
            spoilt.append(recorded)
            raise RuntimeError(says)
        begin(binding, recorded)

    session.begin_with_iobinding = begun  # type: ignore[method-assign]


def test_a_recording_that_fails_is_done_without(model: Path) -> None:
    device = Device()
    session = device.open(model)
    graph = open_graph(session)
    slots = graph.slots(slots=2, length=64)
    failed: list[int] = []
    spoil(session, lambda number: number != UNRECORDED, "operation not permitted when stream is capturing", failed)
    found = [graph.step(slots, [4]).copy() for _ in range(4)]
    assert all(np.array_equal(each, found[0]) for each in found)
    assert len(failed) == 1
    assert "not permitted when stream is capturing" in graph.note


def test_a_recording_that_another_library_spoilt_is_made_once_more(model: Path) -> None:
    device = Device()
    session = device.open(model)
    graph = open_graph(session)
    slots = graph.slots(slots=2, length=64)
    spoilt: list[int] = []
    says = "CUDA failure 901: operation would make the legacy stream depend on a capturing stream"
    spoil(session, lambda number: number in (2, 3) and number not in spoilt, says, spoilt)
    for _ in range(3):
        graph.step(slots, [4])
    assert (device.runs, graph.note) == ([UNRECORDED, 1, 1], "")
    session.shrink()
    for _ in range(4):
        graph.step(slots, [4])
    assert device.runs[3:] == [UNRECORDED] * 4, "each time it was spoilt it ran without"
    assert "901" in graph.note


def test_what_was_recorded_is_recorded_anew_when_memory_was_given_back(model: Path) -> None:
    device = Device()
    session = device.open(model)
    graph = open_graph(session)
    slots = graph.slots(slots=2, length=64)
    for _ in range(3):
        graph.step(slots, [4])
        graph.read(slots, 1, [4, 5])
    session.shrink()
    for _ in range(3):
        graph.step(slots, [4])
        graph.read(slots, 1, [4, 5])
    assert device.runs == [UNRECORDED, UNRECORDED, 1, 2, 1, 2, UNRECORDED, UNRECORDED, 3, 4, 3, 4]


def test_after_so_many_recordings_runs_are_as_they_are_and_it_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime keeps each until the session ends."""
    monkeypatch.setattr(device_graph, "MOST_RECORDINGS", 3)
    device = Device()
    session = device.open(model)
    graph = open_graph(session)
    slots = graph.slots(slots=2, length=64)
    wanted, notes = graph.step(slots, [4]).copy(), list[str]()
    for _ in range(4):
        for _ in range(3):
            np.testing.assert_array_equal(graph.step(slots, [4]), wanted)
            graph.read(slots, 1, [4, 5])
        notes.append(graph.note)
        session.shrink()
    assert set(device.runs) == {UNRECORDED, 1, 2, 3}
    assert device.runs[-6:] == [UNRECORDED] * 6
    assert notes[0] == ""
    assert "3 were" in notes[-1]


def test_a_window_begins_where_its_number_says_whatever_was_there_before(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the last one ends with the slot."""
    sent: list[tuple[int, int]] = []
    send = device_runs.Inputs.send

    def seen(inputs: device_runs.Inputs, tokens: Sequence[int], lengths: Sequence[int]) -> None:
        sent.append((lengths[0] - WINDOW, len(tokens)))
        send(inputs, tokens, lengths)

    graph = open_graph(Device().open(model))
    slots = graph.slots(slots=2, length=150)
    monkeypatch.setattr(device_runs.Inputs, "send", seen)
    text = prompt(1, 149).tolist()
    for parts in ([149], [5, 40, 77, 130, 149]):
        held = slots.held[1] = Held()
        for end in parts:
            while (there := len(held.tokens)) < end:
                part = text[there : there + graph.chunk(slots, there, end - there, alone=True)]
                graph.read(slots, 1, part)
                held.tokens.extend(part)
                assert sent.pop() == (begin := min(there // WINDOW * WINDOW, 150 - WINDOW), len(held.tokens) - begin)


def test_each_run_is_waited_for_once(model: Path) -> None:
    device = Device()
    graph = open_graph(device.open(model))
    slots = graph.slots(slots=3, length=64)
    for _ in range(4):
        graph.read(slots, 1, [4, 5])
        graph.step(slots, [4])
    assert device.stream.waits == len(device.runs) == 8


def test_ids_and_mask_are_aligned_for_any_number_of_slots(model: Path) -> None:
    inputs = device_runs.Inputs(HostStream(), 3, 1, 64)
    assert (inputs.mask_at - inputs.ids_at) % ALIGNMENT == 0
    assert (inputs.mask.ctypes.data - inputs.ids.ctypes.data) % ALIGNMENT == 0


def test_what_is_kept_on_a_device_stays_while_nothing_comes(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is taken anyway."""
    monkeypatch.setattr(admission, "KEPT_SECONDS", 0.01)
    engine = start(Device())
    engine.ask(ask(3, length=100, tokens=2)).wait()
    engine.rest.wait()
    time.sleep(0.1)
    assert engine.ask(ask(3, length=100, tokens=2)).wait().cached == 99


def test_a_graph_whose_attention_is_computed_elsewhere_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Device().open(model)
    monkeypatch.setattr(session, "input_devices", lambda: ["Cpu", "Cpu", *["Elsewhere"] * 4])
    with pytest.raises(NotOnDevice, match="has no kernel for cpu"):
        open_graph(session)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[Sessions]:
    """Sessions that may run on a GPU do, which computes attention on the CPU; those that were opened."""
    opened: list[Sessions] = []
    real = Sessions.open

    def open_(sessions: Sessions, path: Path) -> InterruptibleSession:
        opened.append(sessions)
        if sessions._runtime.providers == ["cpu"]:
            return real(sessions, path)
        session = real(Sessions(Runtime(), 1), path)
        session.stream, session.records = HostStream(), True
        monkeypatch.setattr(session, "input_devices", lambda: ["Elsewhere"] * len(session.get_inputs()))
        return session

    monkeypatch.setattr(Sessions, "open", open_)
    return opened


def a_card(**runtime: Any) -> Card:
    return Card(name="tiny", family="nlp", runtime=Runtime(engine=LONG, **runtime))


def test_a_model_that_a_gpu_can_not_generate_with_is_served_on_the_cpu_and_says_so(
    model: Path, elsewhere: list[Sessions]
) -> None:
    loaded = load(a_card(), model.parent, 1, NoMeter())
    assert len(elsewhere) == 2
    assert loaded.provider == "CPUExecutionProvider"
    assert loaded.note.split("; ")[-1].startswith("on the CPU: attention over float")
    assert loaded.finding.mode is Mode.TOGETHER


def test_a_model_of_16_bits_says_that_it_is_on_the_cpu(model: Path) -> None:
    graph = HostGraph(Sessions(Runtime(), 1).open(model))
    note = load(a_card(), model.parent, 1, NoMeter()).note
    assert note == ("on the CPU, where 16 bits take longer than 32" if graph.dtype == np.float16 else "")


def test_a_card_that_requires_the_gpu_does_not_start_on_the_cpu(model: Path, elsewhere: list[Sessions]) -> None:
    with pytest.raises(ProviderMissing, match="the card requires cuda, and attention over float"):
        load(a_card(require="cuda"), model.parent, 1, NoMeter())
    assert len(elsewhere) == 1


def test_the_mask_has_nothing_of_longer_texts(model: Path) -> None:
    """Columns that were written once are cleared, on the device too."""
    graph, host = open_graph(Device().open(model)), HostGraph(Sessions(Runtime(), 1).open(model))
    for each in (graph, host):
        each.least_rows = 2
    ours, theirs = graph.slots(slots=3, length=64), host.slots(slots=3, length=64)
    chance = np.random.default_rng(5)
    for length in (60, 3, 20, 1, 50):
        for slots, each in ((ours, graph), (theirs, host)):
            for row in range(2):
                slots.held[row].tokens = []
                text = np.random.default_rng(length + row).integers(3, graph.vocabulary, length - row).tolist()
                for at in range(0, len(text), WINDOW):
                    each.read(slots, row, text[at : at + WINDOW])
                    slots.held[row].tokens.extend(text[at : at + WINDOW])
        tokens = chance.integers(3, graph.vocabulary, 2).tolist()
        np.testing.assert_array_equal(graph.step(ours, tokens), host.step(theirs, tokens))


@pytest.mark.parametrize("element", [np.float32, np.float16])
def test_slots_on_a_device_are_copied_and_exchanged_as_on_a_host(element: type[Any]) -> None:
    shape = CacheShape(layers=3, heads=2, head_size=4, dtype=np.dtype(element), slots=4, length=16)
    device, host = DeviceCache(shape, HostStream()), HostCache(shape)
    for cache in (device, host):
        chance = np.random.default_rng(1)
        for place in cache.places(0, 4):
            _at(place, shape)[:] = chance.standard_normal((4, 2, 16, 4))
        cache.copy(0, 2, 3, 9)
        cache.exchange(1, 3, 16, 16)
        cache.copy(2, 1, 5, 5)
        cache.exchange(0, 2, 7, 7)
    for ours, theirs in zip(device.places(0, 4), host.places(0, 4), strict=True):
        np.testing.assert_array_equal(_at(ours, shape), _at(theirs, shape))


def _at(place: Place, shape: CacheShape) -> Any:
    size = int(np.prod(place.shape)) * shape.dtype.itemsize
    raw = (ctypes.c_char * size).from_address(place.address)
    return np.frombuffer(raw, shape.dtype).reshape(place.shape)
