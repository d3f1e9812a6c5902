"""Faults inside a service: a session, an executor or a device fails, and its model alone feels it, for a while."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortmesh.errors import BadInput, ExecutorFailed, Expired, ModelFailed, NotReady, OrtmeshError
from ortmesh.front.call import Call
from ortmesh.serving import slot
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import Item, NoMeter
from tests.serving import graphs
from tests.serving.breakable import ARENA_FULL, ILLEGAL_ACCESS, OUT_OF_MEMORY, Faults
from tests.serving.shelf import HANG_SECONDS, ONES, install, until


@pytest.fixture
async def models(tmp_path: Path, faults: Faults) -> AsyncIterator[Models]:
    """Two models that double: `double`, which is to fail and says that it runs on CUDA, and `other`."""
    store = Store(tmp_path / "store")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double")
    install(store, tmp_path / "double", name="other")
    faults.devices.add("double")
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as loaded:
        await loaded.until_loaded()
        yield loaded


class Stream:
    """Calls of a model one after the other, until it is left; how each ended."""

    def __init__(self, models: Models, name: str, call: Call) -> None:
        self.models, self.name, self.call = models, name, call
        self.good = 0
        self.bad: list[BaseException] = []

    async def __aenter__(self) -> Stream:
        self.task = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _ask(self) -> None:
        while True:
            try:
                outputs = await ask(self.models, self.name, self.call)
            except OrtmeshError as error:
                self.bad.append(error)
                await asyncio.sleep(0.01)
            else:
                assert outputs == [[2, 2, 2, 2]]
                self.good += 1


async def ask(models: Models, name: str, call: Call) -> Any:
    """One call of a model, from its lease to its answer."""
    own = Call("/test.Test/Test", pool=call.pool)
    try:
        return (await models.named(name, "", own)(ONES, own))["y"].tolist()
    finally:
        own.end()


async def recovered(models: Models, model: Model) -> None:
    """It was not ready, and is again."""
    await until(models, lambda: model.state == "FAILED")
    await until(models, lambda: model.state == "READY")


# One item


async def test_only_the_culprit_of_a_batch_gets_the_error(models: Models, faults: Faults, call: Call) -> None:
    def raises(feeds: Mapping[str, Any]) -> Exception | None:
        return RuntimeError("it can't be thirteen") if (feeds["x"] == 13).any() else None

    faults.raising["other"] = raises
    model = models.find("other")
    many = [{"x": np.full((1, 4), n, np.float32)} for n in (1, 13, 2, 3)]
    results = await asyncio.gather(*(model(each, call) for each in many), return_exceptions=True)
    assert isinstance(results[1], ExecutorFailed)
    assert [result["y"][0, 0] for result in results if isinstance(result, Mapping)] == [2, 4, 6]
    assert model.state == "READY"


@pytest.mark.parametrize("text", [OUT_OF_MEMORY, ARENA_FULL], ids=["device", "arena"])
async def test_a_request_for_which_memory_does_not_suffice_fails_alone(
    models: Models, faults: Faults, call: Call, text: str
) -> None:
    """The device is sound: no restart, and the next request is answered."""
    faults.once("double", text)
    with pytest.raises(ExecutorFailed, match="ran out of memory on this request"):
        await ask(models, "double", call)
    assert await ask(models, "double", call) == [[2, 2, 2, 2]]
    assert faults.opened["double"] == 1


async def test_nobody_has_a_model_restarted_by_sending_nonsense(tmp_path: Path, faults: Faults, call: Call) -> None:
    """ONNX Runtime refuses bad ids as a broken session would refuse good ones; what tells them apart is a sample."""
    store = Store(tmp_path / "store")
    graphs.lookup(tmp_path / "lookup")
    install(store, tmp_path / "lookup", name="lookup", inputs={"ids": {"sample_range": [0, 10]}})
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        model = models.find("lookup")
        for _ in range(50):
            with pytest.raises(BadInput):
                await model.infer({"ids": np.array([[99]], np.int64)}, call, outputs=None)
        assert model.state == "READY"
        assert faults.opened["lookup"] == 1


# Every item


async def test_a_session_that_fails_on_everything_is_replaced(models: Models, faults: Faults, call: Call) -> None:
    faults.always("other", "the weights are gone")
    model = models.find("other")
    answers = [await asyncio.gather(ask(models, "other", call), return_exceptions=True) for _ in range(5)]
    assert all(isinstance(answer, ExecutorFailed) for (answer,) in answers)
    await until(models, lambda: model.state == "FAILED")
    assert "every request fails, a sample that it computed before too" in model.state_reason
    faults.heal("other")
    await until(models, lambda: model.state == "READY")
    assert await ask(models, "other", call) == [[2, 2, 2, 2]]


async def test_a_session_that_comes_back_broken_is_not_ready(models: Models, faults: Faults, call: Call) -> None:
    """A restart must compute what the model computed before."""
    faults.always("other", "the weights are gone")
    model = models.find("other")
    for _ in range(5):
        with pytest.raises(ExecutorFailed):
            await ask(models, "other", call)
    await until(models, lambda: "could not be started again" in model.state_reason)
    assert "fails on samples that it computed before" in model.state_reason
    faults.heal("other")
    await until(models, lambda: model.state == "READY")


# The device


async def test_an_illegal_access_takes_one_model_away_for_a_moment(models: Models, faults: Faults, call: Call) -> None:
    """Work that had begun is INTERNAL, what waits may be repeated at once, and the other model notices nothing."""
    model, running, go_on = models.find("double"), threading.Event(), threading.Event()

    def raises(feeds: Mapping[str, Any]) -> Exception:
        running.set()
        go_on.wait(HANG_SECONDS)
        del faults.raising["double"]
        return RuntimeError(ILLEGAL_ACCESS)

    faults.raising["double"] = raises
    states: list[str] = []
    models.watch(lambda: states.append(model.state))
    async with Stream(models, "other", call) as others:
        begun = asyncio.create_task(ask(models, "double", call))
        await asyncio.to_thread(running.wait, HANG_SECONDS)
        queued = [asyncio.create_task(ask(models, "double", call)) for _ in range(20)]
        await asyncio.sleep(0)
        faults.may_open.clear()
        go_on.set()
        with pytest.raises(ExecutorFailed, match="executor broke"):
            await begun
        for error in await asyncio.gather(*queued, return_exceptions=True):
            assert isinstance(error, NotReady)
            assert error.retry_after_seconds
        await until(models, lambda: model.state == "FAILED")
        assert "CUDA failure 700: an illegal memory access" in model.state_reason
        assert "/onnxruntime_src" not in model.state_reason
        with pytest.raises(NotReady, match="is being restarted"):
            await ask(models, "double", call)
        served = others.good
        faults.may_open.set()
        await until(models, lambda: model.state == "READY")
        assert await ask(models, "double", call) == [[2, 2, 2, 2]]
    assert others.good > served
    assert not others.bad
    assert states.count("FAILED") >= 1


async def test_a_model_whose_files_were_replaced_is_not_restarted_from_the_new_ones(
    models: Models, faults: Faults, call: Call, tmp_path: Path
) -> None:
    """They could not be served: the old card over the new graph would be neither."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"no graph")
    store = Store(tmp_path / "store")
    install(store, tmp_path / "bad", replace=True)
    await until(models, lambda: "what replaced it can't be served" in models.find("double").state_reason)
    assert await ask(models, "double", call) == [[2, 2, 2, 2]]
    faults.once("double", ILLEGAL_ACCESS)
    with pytest.raises(ExecutorFailed):
        await ask(models, "double", call)
    await until(models, lambda: models.find("double").state == "FAILED")
    await until(models, lambda: "illegal" not in models.find("double").state_reason)
    with pytest.raises(ModelFailed):
        await ask(models, "double", call)
    install(store, tmp_path / "double", replace=True)
    await until(models, lambda: models.find("double").state == "READY")
    assert await ask(models, "double", call) == [[2, 2, 2, 2]]


async def test_restarts_come_later_and_later_until_one_succeeds(
    models: Models, faults: Faults, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "FIRST_RESTART_SECONDS", 0.1)
    monkeypatch.setattr(slot, "LONGEST_RESTART_SECONDS", 0.4)
    tried: list[float] = []
    model, opening = models.find("double"), faults.open

    def refuse(*given: Any, **more: Any) -> Any:
        if "/double/" in str(given[0]):
            tried.append(time.monotonic())
            if len(tried) <= 4:
                raise RuntimeError(ILLEGAL_ACCESS)
        return opening(*given, **more)

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    faults.once("double", ILLEGAL_ACCESS)
    with pytest.raises(ExecutorFailed):
        await ask(models, "double", call)
    await until(models, lambda: "it could not be started again: CUDA failure 700" in model.state_reason)
    with pytest.raises(NotReady):
        await ask(models, "double", call)
    await until(models, lambda: model.state == "READY")
    waits = [after - before for before, after in itertools.pairwise(tried)]
    for wait, least in zip(waits, (0.2, 0.4, 0.4, 0.4), strict=True):
        assert least <= wait < least + 20
    assert await ask(models, "double", call) == [[2, 2, 2, 2]]


async def test_a_model_of_several_executors_starts_all_of_them_anew(tmp_path: Path, faults: Faults, call: Call) -> None:
    store = Store(tmp_path / "store")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double", runtime={"instances": 2})
    faults.devices.add("double")
    async with Models(store, "nlp", threads=2, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        model = models.find("double")
        faults.once("double", ILLEGAL_ACCESS)
        with pytest.raises(ExecutorFailed):
            await ask(models, "double", call)
        await recovered(models, model)
        await asyncio.gather(*(ask(models, "double", call) for _ in range(20)))
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("executor-double")]
        assert sorted(threads) == ["executor-double@1-0", "executor-double@1-1"]


@pytest.mark.parametrize("others", [True, False], ids=["another model serves", "nothing serves"])
async def test_a_device_that_stays_away_is_lost_when_nothing_else_serves(
    models: Models, faults: Faults, call: Call, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA refuses a process everything after an illegal access: only a new process helps, so the service ends."""
    monkeypatch.setattr(slot, "FIRST_RESTART_SECONDS", 0.02)
    if not others:
        models._store.remove("other", "1")
        await until(models, lambda: [model.name for model in models.list()] == ["double"])
    model = models.find("double")
    faults.always("double", ILLEGAL_ACCESS)
    with pytest.raises(ExecutorFailed):
        await ask(models, "double", call)
    await until(models, lambda: faults.opened["double"] == 5 or models.lost.is_set())
    assert models.lost.is_set() is not others
    assert model.restarting
    faults.heal("double")
    await until(models, lambda: model.state == "READY")


# The thread


async def test_a_thread_that_dies_is_replaced(
    models: Models, faults: Faults, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kills it, also what no session raises."""
    model, compute = models.find("other"), SessionExecutor._compute
    dead: list[bool] = []

    def die_once(self: SessionExecutor, items: Any) -> Any:
        if not dead:
            dead.append(True)
            raise SystemExit("the thread ends")
        return compute(self, items)

    monkeypatch.setattr(SessionExecutor, "_compute", die_once)
    with pytest.raises(ExecutorFailed, match="executor broke"):
        await ask(models, "other", call)
    await recovered(models, model)
    assert await ask(models, "other", call) == [[2, 2, 2, 2]]


# Runs without an end


async def test_a_run_without_an_end_holds_its_executor_no_longer_than_its_caller_waits(
    tmp_path: Path, call: Call
) -> None:
    store = Store(tmp_path / "store")
    graphs.counts_down(tmp_path / "loop")
    install(store, tmp_path / "loop", name="loop", inputs={"x": {"sample_range": [1, 3]}})
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        model = models.find("loop")
        assert model.state == "READY"
        hurried = Call("/test.Test/Test", pool=call.pool, deadline=time.monotonic() + 0.2)
        with pytest.raises(Expired):
            await model({"x": np.full((1, 4), -1, np.float32)}, hurried)
        outputs = await model({"x": np.full((1, 4), 3, np.float32)}, call)
        assert outputs["y"].tolist() == [[0, 0, 0, 0]]
        assert model.state == "READY"


async def test_a_run_without_an_end_does_not_hold_up_the_end_of_the_service(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    graphs.counts_down(tmp_path / "loop")
    install(store, tmp_path / "loop", name="loop", inputs={"x": {"sample_range": [1, 3]}})
    monkeypatch.setattr("ortmesh.serving.model.STUCK_SECONDS", 2 * HANG_SECONDS)
    async with asyncio.timeout(HANG_SECONDS):
        async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
            await models.until_loaded()
            endless = asyncio.create_task(models.find("loop")({"x": np.full((1, 4), -1, np.float32)}, call))
            await asyncio.sleep(0.3)
    with pytest.raises(OrtmeshError):
        await endless


async def test_a_graph_without_an_end_fails_its_warm_up_and_the_others_load(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ortmesh.serving.loaded.WARM_UP_SECONDS", 3.0)
    store = Store(tmp_path / "store")
    graphs.counts_down(tmp_path / "loop")
    graphs.double(tmp_path / "double")
    for number in range(8):
        install(store, tmp_path / "loop", name=f"loop-{number}", inputs={"x": {"sample_range": [-3, -1]}})
    install(store, tmp_path / "double")
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await until(models, lambda: models.find("double").state == "READY")
        await models.until_loaded()
        assert "its warm-up did not end within 3 s" in models.find("loop-0").state_reason
        assert await ask(models, "double", call) == [[2, 2, 2, 2]]


async def test_a_model_that_is_removed_while_it_warms_up_without_an_end_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    graphs.counts_down(tmp_path / "loop")
    install(store, tmp_path / "loop", name="loop", inputs={"x": {"sample_range": [-3, -1]}})
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await asyncio.sleep(0.3)
        store.remove("loop", "1")
        await until(models, lambda: not models.list())


async def test_an_executor_that_can_not_be_stopped_is_given_up(
    models: Models, faults: Faults, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that hangs: the thread is left behind, and a new one answers."""
    monkeypatch.setattr("ortmesh.serving.model.STUCK_SECONDS", 0.5)
    model, begun, hang = models.find("double"), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def stuck(feeds: Mapping[str, Any]) -> None:
        if not hang.is_set():
            del faults.raising["double"]
            loop.call_soon_threadsafe(begun.set)
            hang.wait(HANG_SECONDS)

    faults.raising["double"] = stuck
    leaves = Call("/test.Test/Test", pool=call.pool)
    left = asyncio.create_task(model(ONES, leaves))
    await begun.wait()
    leaves.cancel()
    await until(models, lambda: model.state == "FAILED")
    assert "what nobody waits for, and can't be stopped" in model.state_reason
    await until(models, lambda: model.state == "READY")
    assert await ask(models, "double", call) == [[2, 2, 2, 2]]
    hang.set()
    await asyncio.gather(left, return_exceptions=True)


def test_an_item_that_nobody_waits_for_is_unwanted() -> None:
    """What ends a run is that all of its items are: their deadlines passed, or their callers left."""
    from ortmesh.serving.executor.turn import Turn
    from ortmesh.serving.warmup import Capture

    class Runs:
        ended = 0

        def interrupt(self) -> None:
            self.ended += 1

        def resume(self) -> None:
            self.ended = 0

    runs = Runs()
    turn = Turn(runs)
    past, future = time.monotonic() - 1, time.monotonic() + 60
    items = [Item(ONES, answer=Capture(), owner=Capture(), deadline=deadline) for deadline in (past, future)]
    turn.begin(items)
    turn.interrupt_unwanted()
    assert not runs.ended
    items[1].finish({})
    turn.interrupt_unwanted()
    assert runs.ended
    turn.end()
    turn.begin([])
    assert not runs.ended
