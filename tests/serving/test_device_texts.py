"""Texts on a device, whatever others do beside them and whichever call of the device fails: what comes is right."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from bench.gpu.host import HostStream
from ortmesh.catalogue.recipes._gguf import in_16_bits
from ortmesh.catalogue.recipes._nbits import rounded
from ortmesh.errors import Cancelled, ExecutorFailed, Expired
from ortmesh.serving.cards import EngineSettings, Runtime
from ortmesh.serving.executor.engine import device_graph
from ortmesh.serving.executor.engine.ask import Ask
from ortmesh.serving.executor.engine.cache import CacheShape
from ortmesh.serving.executor.engine.device_cache import DeviceCache
from ortmesh.serving.executor.engine.engine import FAILURES, open_graph
from ortmesh.serving.executor.engine.graph import HostGraph
from ortmesh.serving.executor.engine.sampler import Sampling
from ortmesh.serving.executor.engine.slots import LEAST_KEPT, Held, Slots
from ortmesh.serving.executor.sessions import Sessions
from tests.nlp.tiny_llama import write_tiny_llama
from tests.serving.rest import SECONDS
from tests.serving.test_device_graph import Device
from tests.serving.test_engine import Engine, Heard, ask, held, prompt

TEXTS = 12
SETTINGS = EngineSettings(slots=3, context=100, tokens=300)
OF_THE_STREAM = ("copy", "to_device", "to_host", "wait")
OF_THE_SESSION = "begin_with_iobinding"

Start = Callable[..., Engine]


class Lost(RuntimeError):
    """What a call of the device raises."""


@pytest.fixture(scope="module", params=[rounded, in_16_bits], ids=["f32", "f16"])
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"), kind=request.param) / "model.onnx"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny")) / "model.onnx"


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Engine] = []

    def started(model: Path, settings: EngineSettings = SETTINGS, **options: Any) -> Engine:
        running.append(Engine(model, settings, **options))
        return running[-1]

    yield started
    for each in running:
        each.stop()


def some_asks(chance: random.Random, context: int) -> list[Ask]:
    """Prompts of any length, which begin alike, go on from each other, or are the same."""
    asks: list[Ask] = []
    for seed in range(TEXTS):
        whole = prompt(chance.randrange(2), context)
        begin = asks[-1].prompt if asks and chance.random() < 0.3 else whole[: chance.randrange(1, context)]
        ids = np.concatenate([begin, prompt(100 + seed, chance.choice((0, 0, 1, 2, 20)))])[: context - 1]
        tokens = min(chance.randrange(1, 12), context - len(ids))
        asks.append(Ask(ids, tokens, frozenset(), Sampling(temperature=chance.choice((0.0, 1.0)), seed=seed)))
    return asks


def alone(model: Path, asks: Sequence[Ask], settings: EngineSettings) -> list[list[int]]:
    """What becomes of each on a CPU where nothing else was before."""
    found = []
    for each in asks:
        engine = Engine(model, settings.model_copy(update={"slots": 1}))
        found.append(engine.ask(each).wait().tokens)
        engine.stop()
    return found


@pytest.mark.parametrize("seed", range(6))
def test_a_text_is_what_it_is_alone_on_the_cpu(
    start: Start, any_model: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Windows that fit the context or not, few slots and many, callers that leave or have no time."""
    chance = random.Random(seed)
    context = chance.choice((16, 33, 100, 160))
    slots = chance.choice((1, 2, 3, 6))
    monkeypatch.setattr(device_graph, "WINDOW", chance.choice((8, 16, 32, 256)))
    settings = EngineSettings(slots=slots, context=context, tokens=context * chance.randrange(1, slots + 1))
    asks = some_asks(chance, context)
    expected = alone(any_model, asks, settings)
    engine = start(any_model, settings, sessions=Device(record=chance.random() < 0.8), warm_up=chance.random() < 0.5)
    assert not engine.found
    for _ in range(3):
        order = chance.sample(range(TEXTS), TEXTS)
        heard: dict[int, Heard] = {}
        for place in order:
            soon = math.inf if chance.random() < 0.8 else time.monotonic() + 0.02 * chance.random()
            heard[place] = engine.ask(asks[place], soon, chance.choice(("", "one", "other")))
            if chance.random() < 0.2:
                heard[chance.choice(list(heard))].owner.cancelled = True
        for place, each in heard.items():
            assert each.wait().error is None or isinstance(each.error, Cancelled | Expired)
            assert each.tokens == expected[place][: None if each.error is None else len(each.tokens)]


def break_some(device: Device, call: str, chance: random.Random, rate: float) -> Callable[[], None]:
    """Some calls fail, before they have done their work or after it; returns what makes all of them work again."""
    owner: Any = device._opened[0] if call == OF_THE_SESSION else device.stream
    real = getattr(owner, call)

    def breaking(*arguments: Any) -> Any:
        fate = chance.random()
        if fate < rate / 2:
            raise Lost(call)
        result = real(*arguments)
        if fate < rate:
            raise Lost(call)
        return result

    setattr(owner, call, breaking)
    return lambda: setattr(owner, call, real)


@pytest.mark.parametrize("call", [*OF_THE_STREAM, OF_THE_SESSION])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_whatever_fails_no_text_is_wrong_and_none_is_forgotten(
    start: Start, model: Path, monkeypatch: pytest.MonkeyPatch, call: str, rate: float
) -> None:
    monkeypatch.setattr(device_graph, "WINDOW", 16)
    chance = random.Random(3)
    asks = some_asks(chance, SETTINGS.context)
    expected = alone(model, asks, SETTINGS)
    device = Device(record=True)
    engine = start(model, sessions=device)
    mend = break_some(device, call, chance, rate)
    for _ in range(3):
        for place, each in enumerate(engine.ask_all(asks)):
            while not each.ended.wait(0.05) and engine.thread.is_alive():
                pass
            assert each.ended.is_set() or len(engine.pile), "who was taken is told"
            assert each.error is None or isinstance(each.error, ExecutorFailed)
            assert each.tokens == expected[place][: None if each.end is not None else len(each.tokens)]
        if not engine.thread.is_alive():
            assert engine.broken is not None
            return
    mend()
    assert [each.wait().tokens for each in engine.ask_all(asks)] == expected
    engine.rest.wait()
    assert engine.rest.state[:2] == (0, 0)


def fail_next(owner: Any, call: str) -> None:
    """The next call fails, and none after it."""
    real = getattr(owner, call)

    def failing(*arguments: Any) -> None:
        setattr(owner, call, real)
        raise Lost(call)

    setattr(owner, call, failing)


@pytest.mark.parametrize("call", ["copy", "to_device"])
def test_the_mask_has_nothing_of_longer_texts_after_a_copy_failed(model: Path, call: str) -> None:
    """The run is tried once more, without a recording: it must not see what the failed copy had not cleared."""
    device = Device()
    graph, host = open_graph(device.open(model)), HostGraph(Sessions(Runtime(), 1).open(model))
    ours, theirs = graph.slots(slots=2, length=64), host.slots(slots=2, length=64)
    for length in (60, 3):
        for slots, each in ((ours, graph), (theirs, host)):
            slots.held[0] = Held()
            each.read(slots, 0, prompt(length, length).tolist())
            slots.held[0].tokens = prompt(length, length).tolist()
        if length == 3:
            fail_next(device.stream, call)
        np.testing.assert_array_equal(graph.step(ours, [5]), host.step(theirs, [5])[:1])


def test_a_text_that_can_not_begin_is_told_and_others_are_generated_later(start: Start, model: Path) -> None:
    """What it has in common with a kept one could not be copied: nothing of what is there is used again."""
    engine = start(model, sessions=Device())
    again = ask(1, length=40, tokens=4)
    first = engine.ask(again).wait()
    go_on = threading.Event()
    beside = engine.ask(ask(2, tokens=60, enough=held(2, go_on)))
    assert beside.begun.wait(SECONDS)
    second = engine.ask(again)
    fail_next(engine.executor._slots.cache, "copy")
    go_on.set()
    assert isinstance(second.wait().error, ExecutorFailed)
    assert isinstance(beside.wait().error, ExecutorFailed)
    third = engine.ask(again).wait()
    assert (third.tokens, third.cached) == (first.tokens, 0)
    engine.rest.wait()
    assert engine.broken is None
    assert sorted(engine.rest.reasons) == ["error", "error", "length", "length"]


def test_a_text_that_leaves_is_whole_though_its_place_can_not_be_filled(start: Start, model: Path) -> None:
    """The one that would have taken it is not whole, and ends; the engine goes on."""
    engine = start(model, sessions=Device())
    go_on = threading.Event()
    first = engine.ask(ask(1, tokens=3, enough=held(2, go_on)))
    assert first.begun.wait(SECONDS)
    last = engine.ask(ask(2, tokens=60))
    fail_next(engine.executor._slots.cache, "exchange")
    go_on.set()
    assert len(first.wait().tokens) == 3
    assert isinstance(last.wait().error, ExecutorFailed)
    assert len(engine.ask(ask(2, tokens=60)).wait().tokens) == 60
    engine.rest.wait()
    assert engine.rest.reasons == ["length", "error", "length"]


def test_copies_that_fail_again_and_again_have_the_executor_made_anew(
    start: Start, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(model, sessions=Device())
    for _ in range(FAILURES):
        fail_next(engine.executor._admission, "end")
        assert len(engine.ask(ask(1, tokens=1)).wait().tokens) == 1
    assert engine.thread.is_alive(), "a token came between them"
    go_on = threading.Event()
    beside = engine.ask(ask(2, tokens=60, enough=held(2, go_on)))
    assert beside.begun.wait(SECONDS)
    monkeypatch.setattr(engine.executor._slots, "begin", lost)
    heard = engine.ask_all([ask(seed) for seed in range(FAILURES)])
    go_on.set()
    assert all(isinstance(each.wait().error, ExecutorFailed) for each in (beside, *heard))
    engine.thread.join(SECONDS)
    assert engine.broken is not None
    assert engine.rest.state == (0, 0, 0)


def lost(*arguments: Any) -> Any:
    raise Lost


def test_slots_hold_nothing_of_what_could_not_be_copied() -> None:
    cache = DeviceCache(CacheShape(1, 1, 4, np.dtype(np.float32), slots=4, length=2 * LEAST_KEPT), HostStream())
    slots = Slots(cache, least_read=1)
    for place in range(4):
        tokens = prompt(place, LEAST_KEPT).tolist()
        slots.held[place] = Held(tokens, len(tokens))
    fail_next(cache, "exchange")
    with pytest.raises(Lost):
        slots.exchange(0, 1)
    assert not slots.held[0].tokens
    assert not slots.held[1].tokens
    slots.held[0] = Held(prompt(5, LEAST_KEPT).tolist(), LEAST_KEPT)
    fail_next(cache, "copy")
    with pytest.raises(Lost):
        slots.end(0, 1, keep=True)
    assert sum(bool(each.tokens) for each in slots.held[1:]) == 1


def telling_all(path: Path) -> Path:
    """The same model with logits after each token, as onnxruntime-genai's builder makes it."""
    model = onnx.load(path)
    last = [node for node in model.graph.node if node.op_type == "Gather" and _axis(node) == 1]
    instead = {node.output[0]: node.input[0] for node in last}
    for node in last:
        model.graph.node.remove(node)
    for node in model.graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
    _logits(model).type.tensor_type.shape.dim[1].dim_param = "tokens"
    onnx.save(model, path.parent / "telling_all.onnx")
    return path.parent / "telling_all.onnx"


def of_halves(path: Path) -> Path:
    """The same model with logits of 16 bits, as onnxruntime-genai's builder makes it for GPUs."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["given" if name == "logits" else name for name in node.output]
    model.graph.node.append(helper.make_node("Cast", ["given"], ["logits"], to=TensorProto.FLOAT16))
    _logits(model).type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path.parent / "of_halves.onnx")
    return path.parent / "of_halves.onnx"


def _axis(node: NodeProto) -> int | None:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)


def _logits(model: ModelProto) -> ValueInfoProto:
    return next(output for output in model.graph.output if output.name == "logits")


@pytest.mark.parametrize("other", [telling_all, of_halves])
def test_logits_of_all_tokens_and_of_16_bits_are_taken_too(
    start: Start, model: Path, monkeypatch: pytest.MonkeyPatch, other: Callable[[Path], Path]
) -> None:
    """On a CPU and on a device; their texts are the ones that are known."""
    monkeypatch.setattr(device_graph, "WINDOW", 16)
    path = other(model)
    asks = [ask(seed, length=length, tokens=8, top=2) for seed, length in enumerate((1, 2, 15, 40, 90))]
    expected = alone(model, asks, SETTINGS)
    for sessions in (None, Device()):
        heard = start(path, sessions=sessions, warm_up=True).ask_all(asks)
        assert [each.wait().tokens for each in heard] == expected
        assert all(piece["top_logprobs"].dtype == np.float32 for each in heard for piece in each.pieces)


def test_on_a_cpu_steps_of_any_number_of_texts_have_one_memory_and_prompts_leave_none(model: Path) -> None:
    graph = HostGraph(Sessions(Runtime(), 1).open(telling_all(model)))
    slots = graph.slots(slots=4, length=64)
    graph.read(slots, 0, prompt(1, 32).tolist())
    slots.held[0].tokens = prompt(1, 32).tolist()
    one, three = graph.step(slots, [5]), graph.step(slots, [5, 6, 7])
    assert np.shares_memory(one, three)
    assert not graph._bound[slots].chunks[0].get_outputs()[-1].has_value()


@pytest.mark.parametrize(("says", "breaks"), [("CUDA failure 700: an illegal access", True), ("out of memory", False)])
def test_a_device_that_fails_ends_the_executor_at_once(
    start: Start, model: Path, monkeypatch: pytest.MonkeyPatch, says: str, breaks: bool
) -> None:
    """It fails everybody from then on; a text that is too large does not."""
    device = Device(record=False)
    engine = start(model, sessions=device)

    def failing(*arguments: Any) -> Any:
        raise RuntimeError(says)

    monkeypatch.setattr(device.stream, "to_device", failing)
    heard = engine.ask(ask(1, length=20, tokens=3)).wait()
    assert isinstance(heard.error, ExecutorFailed)
    engine.pile.close()
    engine.thread.join(SECONDS)
    assert (engine.broken is not None and says in str(engine.broken)) == breaks
