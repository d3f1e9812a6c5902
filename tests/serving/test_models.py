"""Models follow the store: versions side by side, defaults, leases, failures that stay their own."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortmesh.errors import BadInput, ModelFailed, NotFound, NotReady
from ortmesh.front.call import Call
from ortmesh.serving.cards import Card
from ortmesh.serving.loaded import load
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import Alike, NoMeter
from ortmesh.serving.warmup import Capture
from tests.serving import graphs
from tests.serving.shelf import ONES, install, until


@pytest.fixture
def shelf(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double", tasks=["embed"], default_for=["embed"])
    return store


@pytest.fixture
async def models(shelf: Store) -> AsyncIterator[Models]:
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as loaded:
        await loaded.until_loaded()
        yield loaded


def new_call(call: Call) -> Call:
    return Call("/test.Test/Other", pool=call.pool)


async def test_a_model_answers(models: Models, call: Call) -> None:
    outputs = await models.choose("embed", "", call)(ONES, call)
    assert outputs["y"].tolist() == [[2, 2, 2, 2]]


async def test_many_items_come_back_in_their_order(models: Models, call: Call) -> None:
    many = [{"x": np.full((1, 4), n, np.float32)} for n in range(100)]
    results = await models.choose("embed", "double@1", call).many(many, call)
    assert [int(outputs["y"][0, 0]) for outputs in results] == [2 * n for n in range(100)]


async def test_a_task_gets_the_outputs_that_it_names(shelf: Store, tmp_path: Path, call: Call) -> None:
    graphs.small_and_wide(tmp_path / "both")
    install(shelf, tmp_path / "both", name="both")
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        model = models.named("both", "", call)
        assert set(await model(ONES, call)) == {"y", "wide"}
        assert set(await model(ONES, call, outputs=["y"])) == {"y"}
        assert [set(each) for each in await model.many([ONES, ONES], call, outputs=("wide",))] == [{"wide"}] * 2


async def test_tensors_that_must_not_be_padded_are_of_a_group_that_says_so(
    shelf: Store, tmp_path: Path, call: Call
) -> None:
    padded = {name: {"pad_axis": 1} for name in ("x", "mask")}
    graphs.masked_sum(tmp_path / "sum")
    install(shelf, tmp_path / "sum", name="sum", inputs=padded)
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        model, answer = models.named("sum", "", call), Capture()
        texts = [{name: np.ones((1, length), np.float32) for name in padded} for length in (3, 3, 4)]
        exact = [model.make_item(each, answer=answer, call=call, pad=False).group for each in texts]
        assert isinstance(exact[0], Alike)
        assert exact[0] == exact[1] != exact[2]
        assert not isinstance(model.make_item(texts[0], answer=answer, call=call).group, Alike)


async def test_an_unknown_model_is_not_found_and_near_names_are_listed(models: Models, call: Call) -> None:
    with pytest.raises(NotFound, match="near names: double"):
        models.choose("embed", "dubble", call)


async def test_the_family_of_a_model_of_another_service_is_told(shelf: Store, call: Call) -> None:
    async with Models(shelf, "vision", threads=1, meter=lambda *_: NoMeter()) as models:
        with pytest.raises(NotFound, match="no model 'double' in the family vision; it is one of nlp"):
            models.choose("embed", "double", call)


async def test_an_unknown_version_is_not_found_and_the_versions_are_listed(models: Models, call: Call) -> None:
    with pytest.raises(NotFound, match="it has 1"):
        models.choose("embed", "double@7", call)


async def test_a_model_of_another_task_is_the_callers_mistake(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match="does not rerank"):
        models.choose("rerank", "double", call)


async def test_a_task_without_a_model_is_not_found(models: Models, call: Call) -> None:
    with pytest.raises(NotFound, match="no model of this service does rerank") as caught:
        models.choose("rerank", "", call)
    assert caught.value.resource == ("task", "nlp.rerank")


async def test_a_model_added_to_the_store_is_served_without_a_restart(
    models: Models, shelf: Store, tmp_path: Path, call: Call
) -> None:
    install(shelf, tmp_path / "double", name="late")
    await until(models, lambda: any(model.name == "late" and model.state == "READY" for model in models.list()))
    assert (await models.named("late", "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]


async def test_a_corrupt_model_fails_with_its_reason_and_the_others_serve(
    models: Models, shelf: Store, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"no graph")
    install(shelf, tmp_path / "bad", name="bad")
    await until(models, lambda: any(model.name == "bad" and model.state == "FAILED" for model in models.list()))
    with pytest.raises(ModelFailed, match=r"(?i)protobuf"):
        models.named("bad", "", call)
    assert (await models.named("double", "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]


async def test_a_new_version_takes_traffic_when_it_is_ready_and_the_old_one_stays_by_name(
    models: Models, shelf: Store, tmp_path: Path, call: Call
) -> None:
    install(shelf, tmp_path / "double", version="2", tasks=["embed"])
    await until(models, lambda: models.find("double").version == "2")
    assert models.find("double").state == "READY"
    assert models.named("double", "1", call).version == "1"
    assert [model.is_default for model in models.list()] == [False, True]


async def test_a_new_version_that_fails_leaves_the_old_one_in_service(
    models: Models, shelf: Store, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"no graph")
    install(shelf, tmp_path / "bad", version="2", tasks=["embed"])
    await until(models, lambda: any(model.version == "2" and model.state == "FAILED" for model in models.list()))
    assert models.choose("embed", "", call).version == "1"


async def test_the_default_version_can_be_set_back(models: Models, shelf: Store, tmp_path: Path) -> None:
    install(shelf, tmp_path / "double", version="2", tasks=["embed"])
    await until(models, lambda: models.find("double").version == "2")
    shelf.set_default("double", "1")
    await until(models, lambda: models.find("double").version == "1")


async def test_a_removed_model_is_gone_after_its_last_lease(models: Models, shelf: Store, call: Call) -> None:
    other = new_call(call)
    model = models.choose("embed", "", other)
    shelf.remove("double", "1")
    await until(models, lambda: model.state == "UNLOADING")
    with pytest.raises(NotReady, match="is being unloaded"):
        models.named("double", "1", call)
    assert (await model(ONES, other))["y"].tolist() == [[2, 2, 2, 2]], "a leased model still answers"
    other.end()
    await until(models, lambda: not models.list() and not executors())
    with pytest.raises(NotFound):
        models.named("double", "1", call)


def executors() -> list[str]:
    """The executors' threads of these tests' models."""
    ours = ("executor-double@", "executor-late@")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)]


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], threading.Event]]:
    """`loading(description)` holds up the load of cards with this description until its event is set."""
    gates: dict[str, threading.Event] = {}

    def held(card: Card, *rest: Any, **more: Any) -> Any:
        if card.description in gates:
            gates[card.description].wait(60)
        return load(card, *rest, **more)

    monkeypatch.setattr("ortmesh.serving.loader.load", held)
    yield lambda description: gates.setdefault(description, threading.Event())
    for gate in gates.values():
        gate.set()


def replace(store: Store, folder: Path, description: str) -> None:
    """Puts another double@1 in the place of the one that is installed."""
    with store.staging() as draft:
        shutil.copy(folder / "model.onnx", draft)
        fields = {"name": "double", "family": "nlp", "tasks": ["embed"], "description": description}
        store.install(Card.model_validate(fields), draft, replace=True)


async def until_described(models: Models, description: str) -> None:
    await until(models, lambda: models.find("double").card.description == description)
    await until(models, lambda: models.find("double").state == "READY")


async def test_a_version_that_is_removed_while_it_loads_never_runs(
    models: Models, shelf: Store, tmp_path: Path, loading: Callable[[str], threading.Event]
) -> None:
    gate = loading("slow")
    install(shelf, tmp_path / "double", name="late", description="slow")
    await until(models, lambda: any(model.name == "late" for model in models.list()))
    shelf.remove("late", "1")
    await asyncio.sleep(1)
    gate.set()
    await until(models, lambda: [model.name for model in models.list()] == ["double"])
    await until(models, lambda: executors() == ["executor-double@1-0"])


async def test_of_two_quick_replacements_the_last_one_serves(
    models: Models, shelf: Store, tmp_path: Path, loading: Callable[[str], threading.Event]
) -> None:
    gate = loading("slow")
    replace(shelf, tmp_path / "double", "slow")
    await asyncio.sleep(1)
    replace(shelf, tmp_path / "double", "last")
    await asyncio.sleep(1)
    gate.set()
    await until_described(models, "last")
    await until(models, lambda: len(executors()) == 1)


async def test_a_version_that_is_removed_while_its_replacement_loads_stays_gone(
    models: Models, shelf: Store, tmp_path: Path, loading: Callable[[str], threading.Event]
) -> None:
    gate = loading("slow")
    replace(shelf, tmp_path / "double", "slow")
    await asyncio.sleep(1)
    shelf.remove("double", "1")
    await asyncio.sleep(1)
    gate.set()
    await until(models, lambda: not models.list() and not executors())


async def test_a_broken_replacement_leaves_what_serves_in_service(
    models: Models, shelf: Store, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"no graph")
    replace(shelf, tmp_path / "bad", "broken")
    await until(models, lambda: "what replaced it can't be served" in models.find("double").state_reason)
    assert models.find("double").state == "READY"
    assert (await models.choose("embed", "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]


async def test_a_broken_default_is_passed_over_by_a_service_that_starts(
    shelf: Store, tmp_path: Path, call: Call
) -> None:
    """As by one that runs: which version answers must not depend on when a service was started."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"no graph")
    install(shelf, tmp_path / "bad", version="2", tasks=["embed"])
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        assert models.choose("embed", "", call).version == "1"


async def test_a_cancelled_callers_item_never_runs(models: Models, call: Call) -> None:
    model, other = models.find("double"), new_call(call)
    other.cancel()
    with pytest.raises(Exception, match="the caller left"):
        await model(ONES, other)


async def test_a_model_that_loads_is_not_ready_yet(shelf: Store, call: Call) -> None:
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as loading:
        with pytest.raises(NotReady, match="is being loaded"):
            loading.choose("embed", "", call)


async def test_before_the_first_look_at_the_store_no_model_is_unknown(shelf: Store, call: Call) -> None:
    """A caller of a service that starts must be told to come again, not that its model does not exist."""
    models = Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter())
    with pytest.raises(NotReady, match="is starting"):
        models.choose("embed", "", call)
    with pytest.raises(NotReady, match="is starting"):
        models.named("double", "", call)


async def test_a_service_can_be_told_to_serve_some_models_only(shelf: Store, tmp_path: Path) -> None:
    install(shelf, tmp_path / "double", name="other")
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter(), only=["other"]) as models:
        assert [model.name for model in models.list()] == ["other"]


async def test_models_of_other_families_are_left_to_their_services(shelf: Store) -> None:
    async with Models(shelf, "vision", threads=1, meter=lambda *_: NoMeter()) as models:
        assert models.list() == []


async def test_the_log_says_on_what_a_model_is_ready_and_how_it_is_served(
    shelf: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graphs.batch_mean(tmp_path / "mean")
    install(shelf, tmp_path / "mean", name="mean")
    with caplog.at_level(logging.INFO):
        async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
            await models.until_loaded()
    assert "double@1 is ready on CPUExecutionProvider" in caplog.messages
    (mean,) = (line for line in caplog.messages if line.startswith("mean@1 is ready"))
    assert mean.startswith("mean@1 is ready on CPUExecutionProvider, served one at a time: ")


async def test_the_batch_mean_graph_answers_right_under_load(shelf: Store, tmp_path: Path, call: Call) -> None:
    graphs.batch_mean(tmp_path / "mean")
    install(shelf, tmp_path / "mean", name="mean")
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        model = models.find("mean")
        assert model.state_reason.startswith("served one at a time")
        many = [{"x": np.full((1, 4), n, np.float32)} for n in range(200)]
        results = await model.many(many, call)
        assert all(not outputs["y"].any() for outputs in results)


# What the store does to what serves


async def test_when_the_default_version_is_removed_the_newest_that_is_left_answers(
    models: Models, shelf: Store, tmp_path: Path, call: Call
) -> None:
    for version in ("2", "3"):
        install(shelf, tmp_path / "double", version=version, tasks=["embed"])
    await until(models, lambda: models.find("double").version == "3")
    shelf.set_default("double", "1")
    await until(models, lambda: models.find("double").version == "1")
    shelf.remove("double", "1")
    await until(models, lambda: [model.version for model in models.list()] == ["2", "3"])
    assert models.choose("embed", "", call).version == "3"


@pytest.mark.parametrize("nonsense", ["name: [", "", "family: smell\nname: double", "files: {gone.onnx: null}"])
async def test_a_card_that_is_edited_to_nonsense_leaves_its_model_in_service(
    models: Models, shelf: Store, call: Call, nonsense: str
) -> None:
    """Editors write in several steps, and people make mistakes: neither takes a model away from its callers."""
    model, path = models.find("double"), shelf.folder("double", "1") / "card.yaml"
    good = path.read_text()
    path.write_text(nonsense)
    await until(models, lambda: "what the store holds now can't be used: " in model.state_reason)
    assert (await models.choose("embed", "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]
    path.write_text(good.replace("tasks:", "description: mended\ntasks:"))
    await until_described(models, "mended")
    assert models.find("double").state_reason == ""
    path.write_text(nonsense)
    await until(models, lambda: "can't be used" in models.find("double").state_reason)
    shelf.remove("double", "1")
    call.end()
    await until(models, lambda: not models.list())


async def test_a_graph_that_is_put_in_anothers_place_takes_the_old_ones_place(
    models: Models, shelf: Store, tmp_path: Path, call: Call
) -> None:
    graphs.batch_mean(tmp_path / "other")
    (tmp_path / "other" / "model.onnx").replace(shelf.folder("double", "1") / "model.onnx")
    await until(models, lambda: "one at a time" in models.find("double").state_reason)
    assert (await models.choose("embed", "", call)(ONES, call))["y"].tolist() == [[0, 0, 0, 0]]


async def test_a_store_on_a_path_of_any_characters_is_served(tmp_path: Path, call: Call) -> None:
    store = Store(tmp_path / "Модели und größere $HOME 'quotes' \U0001f408")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double")
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        assert (await models.named("double", "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]


async def test_links_in_circles_and_out_of_the_store_and_names_that_are_none_harm_nobody(
    shelf: Store, tmp_path: Path, call: Call
) -> None:
    (shelf.root / "loop").symlink_to("loop")
    (shelf.root / "double" / "2").symlink_to("2")
    (shelf.root / "itself").symlink_to(".")
    (shelf.root / "root").symlink_to("/")
    os.makedirs(os.fsencode(shelf.root) + b"/\xff\xfe/\xff")
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        assert [model.name for model in models.list()] == ["double"]
        await asyncio.to_thread(install, shelf, tmp_path / "double", "late")
        await until(models, lambda: any(model.name == "late" and model.state == "READY" for model in models.list()))


# Memory that is not there


async def test_a_model_for_which_there_is_no_memory_is_tried_again(
    shelf: Store, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reason is told meanwhile, and the others serve."""
    monkeypatch.setattr("ortmesh.serving.slot.LONGEST_RESTART_SECONDS", 0.2)
    monkeypatch.setattr("ortmesh.serving.loaded.free_bytes", lambda: free)
    free = 500_000.0
    graphs.heavy(tmp_path / "heavy", 1)
    install(shelf, tmp_path / "heavy", name="heavy")
    async with Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await until(models, lambda: models.find("heavy").state == "FAILED")
        assert models.find("heavy").state_reason == "its files have 1 MB, and 0.5 MB of memory are free"
        assert models.find("heavy").retrying
        await until(models, lambda: models.find("double").state == "READY")
        assert (await models.named("double", "", call)(ONES, call))["y"].tolist() == [[2, 2, 2, 2]]
        free = 5_000_000
        await until(models, lambda: models.find("heavy").state == "READY")
        assert not models.find("heavy").retrying
