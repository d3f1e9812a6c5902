"""Models that somebody made or changed: vectors get length 1, and what a card forgets is told by name, at load."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from ortmesh.errors import ExecutorFailed, ModelFailed
from ortmesh.front.call import Call
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest, EmbedResponse
from ortmesh.serving.cards import Card
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh.serving.types import NoMeter
from ortmesh_nlp import embed
from ortmesh_nlp.detect_language import DetectLanguage
from ortmesh_nlp.embed import Embed
from ortmesh_nlp.find_entities import FindEntities
from tests.nlp.replies import Waiting
from tests.serving.graphs import tensor, write

LONG, FLOAT = TensorProto.INT64, TensorProto.FLOAT
NAMES = ("input_ids", "attention_mask", "embedding")
Install = Callable[..., None]


@pytest.fixture
def shelf(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def install(shelf: Store) -> Install:
    """Installs `mine`, whose vectors are [sum of the ids, how many they are, 0]: far from length 1. It knows so many
    ids as it has `rows`."""

    def made(
        names: Sequence[str] = NAMES,
        kind: int = LONG,
        dimensions: int = 2,
        tokenizer: str | None = "right",
        preprocessing: dict[str, Any] | None = None,
        tasks: Sequence[str] = ("embed",),
        default_for: Sequence[str] = (),
        rows: int = 1000,
    ) -> None:
        ids, mask, vector = names
        nodes: list[object] = [
            helper.make_node("Gather", ["itself", ids], ["known"]),
            helper.make_node("ReduceSum", ["known", "last"], ["sum"]),
            helper.make_node("ReduceSum", [mask, "last"], ["count"]),
            helper.make_node("Sub", ["sum", "sum"], ["nothing"]),
            helper.make_node("Concat", ["sum", "count", "nothing"], ["joined"], axis=1),
            helper.make_node("Cast", ["joined"], ["flat"], to=FLOAT),
            helper.make_node("Reshape", ["flat", "shape"], [vector]),
        ]
        shape = [-1, *[1] * (dimensions - 2), 3]
        takes = [tensor(ids, ["n", "length"], kind), tensor(mask, ["n", "length"], kind)]
        weights: dict[str, object] = {
            "last": np.array([1]),
            "shape": np.array(shape),
            "itself": np.arange(rows, dtype=helper.tensor_dtype_to_np_dtype(kind)),
        }
        card = Card.model_validate(
            {
                "name": "mine",
                "family": "nlp",
                "tasks": tasks,
                "default_for": default_for,
                "files": {"model.onnx": None},
                "preprocessing": {"max_tokens": 16} if preprocessing is None else preprocessing,
            }
        )
        with shelf.staging() as folder:
            write(folder, nodes, takes, [tensor(vector, ["n", *shape[1:]])], weights)
            if tokenizer == "right":
                words = Tokenizer(WordLevel({"?": 1, "one": 2, "two": 3}, unk_token="?"))
                words.pre_tokenizer = Whitespace()
                words.save(str(folder / "tokenizer.json"))
            elif tokenizer is not None:
                (folder / "tokenizer.json").write_text(tokenizer)
            shelf.install(card, folder)

    return made


async def embedded(shelf: Store, call: Call, *texts: str) -> EmbedResponse:
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        assert [model.state for model in models.list()] == ["READY"]
        return await Embed(models)(EmbedRequest(texts=texts), call)


async def test_vectors_get_length_1_whatever_the_model_gives(shelf: Store, install: Install, call: Call) -> None:
    install()
    answer = await embedded(shelf, call, "one", "one two two")
    first, second = [result.embedding for result in answer.results]
    assert list(first.values) == pytest.approx([2 / 5**0.5, 1 / 5**0.5, 0])
    assert list(second.values) == pytest.approx([8 / 73**0.5, 3 / 73**0.5, 0])
    assert first.normalized
    assert second.normalized


async def test_a_tokenizer_loads_in_the_pool_once_and_holds_up_no_other_call(
    shelf: Store, install: Install, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    loading, loaded = threading.Event(), threading.Event()
    threads: list[str] = []

    def load_slowly(path: Path) -> Tokenizer:
        threads.append(threading.current_thread().name)
        loading.set()
        assert loaded.wait(60)
        return load_tokenizer(path)

    monkeypatch.setattr(embed, "load_tokenizer", load_slowly)
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        answers = [asyncio.create_task(Embed(models)(EmbedRequest(texts=["one"]), call)) for _ in range(3)]
        await asyncio.to_thread(loading.wait, 5)
        models.choose("embed", "", call)
        loaded.set()
        await asyncio.gather(*answers)
    assert len(threads) == 1
    assert threads[0].startswith("ortmesh-pool")


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ({"preprocessing": {}}, "preprocessing: max_tokens: "),
        ({"preprocessing": {"max_tokens": "many"}}, "preprocessing: max_tokens: "),
        (
            {"preprocessing": {"Max_token": 16}},
            "it is missing; preprocessing: no task reads",
        ),
        ({"names": ("ids", *NAMES[1:])}, "takes 'ids', 'attention_mask', and the task gives 'input_ids', "),
        ({"names": (*NAMES[:2], "vector")}, "gives 'vector', and the task needs 'embedding'"),
        ({"kind": TensorProto.INT32}, "its input 'input_ids' is INT32, not INT64"),
        ({"dimensions": 3}, "its output 'embedding' has 3 dimensions, not 2"),
        ({"tokenizer": None}, "its file 'tokenizer.json' can't be read: it is missing"),
        ({"tokenizer": "{}"}, "its file 'tokenizer.json' can't be read: "),
    ],
)
async def test_what_a_card_gets_wrong_is_told_by_name(
    shelf: Store, install: Install, call: Call, mistake: dict[str, Any], named: str
) -> None:
    install(**mistake)
    with pytest.raises(ModelFailed) as caught:
        await embedded(shelf, call, "one")
    assert caught.value.message.startswith("the card of mine@1 can't be used: ")
    assert named in caught.value.message
    assert str(shelf.root) not in caught.value.message


@asynccontextmanager
async def all_bound(shelf: Store) -> AsyncIterator[Model]:
    """The only model of a service whose one task is Embed."""
    models = Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter())
    Embed(models)
    models.all_tasks_are_bound()
    async with models:
        await models.until_loaded()
        (model,) = models.list()
        yield model


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"tasks": ["embedd"]}, 'tasks: "embedd": there is no such task of nlp; did you mean embed?'),
        ({"tasks": ["embed", "\x1b[1m"]}, 'tasks: "\\u001b[1m": there is no such task of nlp; there are embed'),
        ({"default_for": ["classify"]}, 'default_for: "classify" is none of its tasks'),
    ],
)
async def test_a_task_that_is_none_is_told_beside_what_is_served(
    shelf: Store, install: Install, card: dict[str, Any], said: str
) -> None:
    """Its tensors can be called still, and a card of a later version may know more tasks; none of them chooses it."""
    install(**card)
    async with all_bound(shelf) as model:
        assert (model.state, model.state_reason) == ("READY", said)
        assert model.default_for == [task for task in model.card.tasks if task == "embed"]


async def test_a_card_that_gets_thousands_of_things_wrong_is_told_of_a_few(shelf: Store, install: Install) -> None:
    wrong = {f"tokeni{number:04}": 1 for number in range(3000)}
    install(tasks=["embed", *wrong], preprocessing={"max_tokens": 16, **wrong})
    async with all_bound(shelf) as model:
        assert model.state == "READY"
        assert "and 2995 more" in model.state_reason
        assert len(model.state_reason) < 1000


async def test_a_constant_that_is_misspelt_is_told_and_one_that_nobody_reads_is_not(
    shelf: Store, install: Install
) -> None:
    install(preprocessing={"max_tokens": 16, "tokeniser": "tokenizer.json", "dimension": 3})
    models = Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter())
    Embed(models)
    async with models:
        await models.until_loaded()
        (model,) = models.list()
        said = 'preprocessing: no task reads "tokeniser"; did you mean tokenizer?'
        assert (model.state, model.state_reason) == ("READY", said)


@pytest.mark.parametrize("way", ["directly", "by the coroutine"])
async def test_a_tokenizer_of_another_model_is_nothing_that_a_caller_gave(
    shelf: Store, install: Install, call: Call, way: str
) -> None:
    """Its third word has a number that the graph does not know."""
    install(rows=3)
    models = Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter())
    embed = Embed(models)
    async with models:
        await models.until_loaded()
        assert [model.state for model in models.list()] == ["READY"]
        assert (await embed(EmbedRequest(texts=["one"]), call)).results[0].embedding.values
        with pytest.raises(
            ExecutorFailed, match="refuses what was made of the request; its card or one of its files may"
        ):
            await asked(embed, EmbedRequest(texts=["two"]), call, way)


async def asked(embed: Embed, request: EmbedRequest, call: Call, way: str) -> EmbedResponse:
    if way == "by the coroutine":
        return await embed(request, call)
    reply = Waiting()
    assert embed.direct(request, call, reply)
    return await asyncio.wait_for(reply.answer, 30)


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ({"preprocessing": {}}, "preprocessing: max_tokens: "),
        ({"tokenizer": None}, "its file 'tokenizer.json' can't be read: it is missing"),
    ],
)
async def test_a_model_that_its_task_can_not_use_is_not_ready(
    shelf: Store, install: Install, call: Call, mistake: dict[str, Any], named: str
) -> None:
    """A service binds its tasks before it loads its models, so an operator sees at once what callers would be told."""
    install(**mistake)
    await assert_failed(shelf, Embed, "embed", named, call)


@pytest.mark.parametrize(
    ("name", "file", "kept", "named"),
    [
        ("lid-176", "labels.txt", 3, "it has 3 labels for 176 classes"),
        ("lid-176", "labels.txt", 0, "the task needs its labels"),
        ("lid-176", "names.txt", 175, "its file 'names.txt' has 175 names for 176 labels"),
        ("rampart", "labels.txt", 34, "it has 34 labels for 35 classes"),
    ],
)
async def test_a_model_with_too_few_labels_is_not_ready(
    store: Store, shelf: Store, call: Call, name: str, file: str, kept: int, named: str
) -> None:
    folder = shelf.root / name / "1"
    shutil.copytree(store.folder(name, "1"), folder)
    lines = (folder / file).read_text().splitlines(keepends=True)
    (folder / file).write_text("".join(lines[:kept]))
    task = {"lid-176": DetectLanguage, "rampart": FindEntities}[name]
    await assert_failed(shelf, task, {"lid-176": "detect_language", "rampart": "find_entities"}[name], named, call)


async def test_labels_that_are_no_tags_are_told(store: Store, shelf: Store, call: Call) -> None:
    folder = shelf.root / "rampart" / "1"
    shutil.copytree(store.folder("rampart", "1"), folder)
    labels = (folder / "labels.txt").read_text()
    (folder / "labels.txt").write_text(labels.replace("I-CITY", "CITY"))
    await assert_failed(shelf, FindEntities, "find_entities", "no BIO tags: .*I-CITY", call)


async def assert_failed(shelf: Store, task: Callable[[Models], object], method: str, named: str, call: Call) -> None:
    """The only model of the store has failed, and its state and callers are told why."""
    models = Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter())
    task(models)
    async with models:
        await models.until_loaded()
        (model,) = models.list()
        assert model.state == "FAILED"
        assert re.search(named, model.state_reason), model.state_reason
        assert str(shelf.root) not in model.state_reason
        with pytest.raises(ModelFailed, match=named):
            models.choose(method, "", call)
