"""ModelService against real models: pages, one model, and the stream of changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from ortmesh.errors import BadInput, NotFound
from ortmesh.front.call import Call
from ortmesh.front.pool import Pool
from ortmesh.models.v1 import models_pb2
from ortmesh.serving import model_service
from ortmesh.serving.cards import Batching, Card, License, TensorSpec
from ortmesh.serving.model_service import GetModel, ListModels, WatchModels
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from ortmesh.serving.warmup import Mode


def card(name: str, **options: Any) -> Card:
    return Card(name=name, family="nlp", files={"model.onnx": None}, **options)


def install(store: Store, card: Card, *, broken: bool = False) -> None:
    """A card with a graph that passes its input on, or with no graph at all."""
    shapes = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "tiny", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with store.staging() as folder:
        (folder / "model.onnx").write_bytes(b"no graph" if broken else model.SerializeToString())
        store.install(card, folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "models")
    license = License(weights="MIT", attribution="Ada")
    install(store, card("alpha", tasks=["embed"], description="First.", batching=Batching(max_rows=7), license=license))
    install(store, card("beta", version="1", tasks=["classify", "embed"]))
    install(store, card("beta", version="2", tasks=["classify", "embed"]))
    install(store, card("gamma"), broken=True)
    return store


@pytest.fixture
async def models(store: Store) -> AsyncIterator[Models]:
    async with Models(store, "nlp", threads=1, meter=lambda name, version: NoMeter()) as models:
        await models.until_loaded()
        yield models


@pytest.fixture
def call() -> Iterator[Call]:
    pool = Pool(1, 1024)
    yield Call("/test", pool=pool)
    pool.close()


def keys(models: Any) -> list[str]:
    return [f"{model.name}@{model.version}" for model in models]


async def page(models: Models, call: Call, **fields: Any) -> models_pb2.ListModelsResponse:
    return await ListModels(models)(models_pb2.ListModelsRequest(**fields), call)


ALL = ["alpha@1", "beta@1", "beta@2", "gamma@1"]


async def test_models_are_listed_by_name_and_version(models: Models, call: Call) -> None:
    answer = await page(models, call)
    assert keys(answer.models) == ALL
    assert answer.next_page_token == ""


@pytest.mark.parametrize(
    ("family", "task", "expected"),
    [
        ("nlp", "", ALL),
        ("vision", "", []),
        ("", "embed", ["alpha@1", "beta@1", "beta@2"]),
        ("nlp", "classify", ["beta@1", "beta@2"]),
        ("", "class", []),
    ],
)
async def test_a_list_is_filtered(family: str, task: str, expected: list[str], models: Models, call: Call) -> None:
    assert keys((await page(models, call, family=family, task=task)).models) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5000])
async def test_pages_join_to_the_whole(size: int, models: Models, call: Call) -> None:
    """Each page but the last has its size, and only the last has no token."""
    pages = [await page(models, call, page_size=size)]
    while pages[-1].next_page_token:
        assert len(pages[-1].models) == size
        pages.append(await page(models, call, page_size=size, page_token=pages[-1].next_page_token))
    assert [key for answer in pages for key in keys(answer.models)] == ALL
    assert all(answer.models for answer in pages)


async def test_a_model_that_goes_between_two_pages_shifts_nothing(models: Models, store: Store, call: Call) -> None:
    """A token stands for the last model that was listed, not for a count."""
    first = await page(models, call, page_size=2)
    async with watching(models, call) as answers:
        await anext(answers)
        store.remove("beta", "1")
        while "beta@1" in keys((await anext(answers)).models):
            pass
    rest = await page(models, call, page_token=first.next_page_token)
    assert keys(rest.models) == ["beta@2", "gamma@1"]


@pytest.mark.parametrize("token", ["2", "!!!!", "YWxwaGE=", "/+8=", "é", "_w==", "YWxwaGFAMQ"])
async def test_a_made_up_token_is_refused(token: str, models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match="page_token: expected the next_page_token of an earlier answer"):
        await page(models, call, page_token=token)


async def test_a_negative_page_size_is_refused(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match="page_size: -1: expected 1 to 1000, or 0 for 100"):
        await page(models, call, page_size=-1)


async def test_a_model_shows_what_its_card_and_graph_say(models: Models, call: Call) -> None:
    answer = await GetModel(models)(models_pb2.GetModelRequest(model="alpha"), call)
    shown = json.loads(answer.card_json)
    assert Card.model_validate(shown) == models.find("alpha").card
    answer.ClearField("card_json")
    batching = answer.batching
    assert (batching.policy, batching.executors, batching.threads) == ("by cost", 1, 1)
    assert {cost.size for cost in batching.costs} == {0}
    assert batching.costs[0].rows == 1
    assert 0 < batching.costs[0].seconds < 1
    assert batching.choices[0].items_per_second > 0
    answer.ClearField("batching")
    tensor = {"datatype": "FP32", "shape": [-1, 3], "batch_axis": 0}
    assert answer == models_pb2.Model(
        name="alpha",
        version="1",
        family="nlp",
        tasks=["embed"],
        default_version=True,
        state=models_pb2.MODEL_STATE_READY,
        inputs=[models_pb2.Tensor(name="x", **tensor)],  # type: ignore[arg-type]
        outputs=[models_pb2.Tensor(name="y", **tensor)],  # type: ignore[arg-type]
        max_batch_size=7,
        provider="CPUExecutionProvider",
        license="MIT",
        attribution="Ada",
        description="First.",
        default_for=["embed"],
    )


async def test_a_tensor_without_a_batch_axis_says_so(store: Store, call: Call) -> None:
    install(store, card("delta", inputs={"x": TensorSpec(batch_axis=None)}, outputs={"y": TensorSpec(batch_axis=None)}))
    async with Models(store, "nlp", threads=1, meter=lambda name, version: NoMeter(), only=["delta"]) as models:
        await models.until_loaded()
        answer = await GetModel(models)(models_pb2.GetModelRequest(model="delta"), call)
        assert [tensor.batch_axis for tensor in [*answer.inputs, *answer.outputs]] == [-1, -1]
        assert "one at a time" in answer.state_reason


@pytest.mark.parametrize(("name", "key"), [("beta", "beta@2"), ("beta@1", "beta@1"), ("beta@2", "beta@2")])
async def test_a_name_alone_is_the_default_version(name: str, key: str, models: Models, call: Call) -> None:
    answer = await GetModel(models)(models_pb2.GetModelRequest(model=name), call)
    assert keys([answer]) == [key]
    assert answer.default_version == (key == "beta@2")


async def test_which_model_answers_for_a_task_is_told(models: Models, store: Store, call: Call) -> None:
    """Of a request that names none: one model a task. It is the one that `choose` gives, and changes with the store."""

    async def told() -> dict[str, list[str]]:
        return {key: list(each.default_for) for each in (await page(models, call)).models for key in keys([each])}

    assert await told() == {"alpha@1": ["embed"], "beta@1": [], "beta@2": ["classify"], "gamma@1": []}
    install(store, card("omega", tasks=["embed"], default_for=["embed"]))
    async with watching(models, call) as answers:
        while not (await anext(answers)).models[-1].provider:
            pass
    assert await told() == {"alpha@1": [], "beta@1": [], "beta@2": ["classify"], "gamma@1": [], "omega@1": ["embed"]}
    assert models.choose("embed", "", call).name == "omega"


async def test_a_model_that_failed_is_shown_with_its_reason(models: Models, call: Call) -> None:
    answer = await GetModel(models)(models_pb2.GetModelRequest(model="gamma"), call)
    assert answer.state == models_pb2.MODEL_STATE_FAILED
    assert answer.state_reason
    assert not answer.retrying
    assert not answer.inputs


async def test_an_unknown_model_is_not_found_and_near_ones_are_named(models: Models, call: Call) -> None:
    with pytest.raises(NotFound, match="alpha"):
        await GetModel(models)(models_pb2.GetModelRequest(model="alfa"), call)
    with pytest.raises(NotFound, match="1, 2"):
        await GetModel(models)(models_pb2.GetModelRequest(model="beta@3"), call)
    with pytest.raises(BadInput, match="model: expected"):
        await GetModel(models)(models_pb2.GetModelRequest(), call)


class watching:  # noqa: N801 (reads as a statement)
    """A WatchModels stream, closed at the end as the front closes it."""

    def __init__(self, models: Models, call: Call, **fields: Any) -> None:
        self.answers = WatchModels(models)(models_pb2.WatchModelsRequest(**fields), call)

    async def __aenter__(self) -> AsyncIterator[models_pb2.WatchModelsResponse]:
        return self.answers

    async def __aexit__(self, *_: object) -> None:
        await self.answers.aclose()  # type: ignore[attr-defined]


async def test_a_watch_tells_all_at_once_and_again_after_a_change(models: Models, store: Store, call: Call) -> None:
    async with watching(models, call, task="embed") as answers:
        assert keys((await anext(answers)).models) == ["alpha@1", "beta@1", "beta@2"]
        install(store, card("omega", tasks=["embed"]))
        states = [(await anext(answers)).models[-1]]
        while states[-1].state != models_pb2.MODEL_STATE_READY:
            states.append((await anext(answers)).models[-1])
        assert {state.name for state in states} == {"omega"}


async def test_a_watch_does_not_repeat_itself(models: Models, store: Store, call: Call) -> None:
    """A change of models that it does not list is not told."""
    async with watching(models, call, task="classify") as answers:
        await anext(answers)
        install(store, card("omega"))
        async with watching(models, call) as all_models:
            while (await anext(all_models)).models[-1].state != models_pb2.MODEL_STATE_READY:
                pass
        install(store, card("psi", tasks=["classify"]))
        assert keys((await anext(answers)).models) == ["beta@1", "beta@2", "psi@1"]


async def test_changes_are_told_once_to_a_slow_reader(call: Call) -> None:
    """However many changes came while an answer was sent: the next answer is what is true then."""
    models = Changing()
    async with watching(models, call) as answers:  # type: ignore[arg-type]
        await anext(answers)
        for _ in range(100):
            models.change()
        assert (await anext(answers)).models[0].state_reason == "100"
        later = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0)
        assert not later.done()
        models.change()
        assert (await later).models[0].state_reason == "101"
    assert not models.watchers


async def test_a_watch_ends_with_its_call(models: Models, call: Call) -> None:
    """The front cancels the task that reads it: the subscription goes with it."""

    async def read() -> None:
        async with watching(models, call) as answers:
            async for _ in answers:
                reading.set()

    reading = asyncio.Event()
    before = list(models._watchers)
    task = asyncio.create_task(read())
    await reading.wait()
    call.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert models._watchers == before


def test_every_method_is_bound(call: Call) -> None:
    rows = model_service.methods(Changing())  # type: ignore[arg-type]
    assert [row.path for row in rows] == [
        f"/{model_service.SERVICE}/{name}" for name in ("ListModels", "GetModel", "WatchModels")
    ]
    assert [row.streams for row in rows] == [False, False, True]


class Changing:
    """One model whose reason counts its changes."""

    card = card("alpha")
    name, version, state, is_default, provider = "alpha", "1", "READY", True, ""
    executors, mode = 0, Mode.TOGETHER
    default_for, retrying = (), False
    inputs: dict[str, Any] = {}  # noqa: RUF012
    outputs: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.changes = 0
        self.looked = asyncio.Event()
        self.looked.set()
        self.watchers: list[Any] = []

    @property
    def state_reason(self) -> str:
        return str(self.changes)

    def list(self) -> list[Any]:
        return [self]

    def watch(self, callback: Any) -> Any:
        self.watchers.append(callback)
        return lambda: self.watchers.remove(callback)

    def change(self) -> None:
        self.changes += 1
        for callback in self.watchers:
            callback()
