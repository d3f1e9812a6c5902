"""OIP's methods that run no model."""

from __future__ import annotations

from pathlib import Path

import pytest

import ortmesh
from ortmesh.descriptors import oip
from ortmesh.errors import BadInput, NotFound
from ortmesh.front.pool import Pool
from ortmesh.serving import oip as oip_methods
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from tests.serving.oip.calls import Caller

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_server_is_live_and_says_what_it_is(ask: Caller) -> None:
    assert (await ask("ServerLive", oip("ServerLiveRequest")())).live
    answer = await ask("ServerMetadata", oip("ServerMetadataRequest")())
    assert (answer.name, answer.version) == ("ortmesh-nlp", ortmesh.__version__)


async def test_the_server_is_ready_with_a_ready_model_until_it_drains(
    ask: Caller, models: Models, pool: Pool, tmp_path: Path
) -> None:
    request = oip("ServerReadyRequest")()
    assert (await ask("ServerReady", request)).ready
    draining = oip_methods.methods(models, family="nlp", accepting=lambda: False)
    assert not (
        await Caller({each.path.rsplit("/")[-1]: each for each in draining}, pool)("ServerReady", request)
    ).ready
    async with Models(Store(tmp_path), "nlp", threads=1, meter=lambda name, version: NoMeter()) as none:
        empty = oip_methods.methods(none, family="nlp")
        assert not (
            await Caller({each.path.rsplit("/")[-1]: each for each in empty}, pool)("ServerReady", request)
        ).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("sums", "", True), ("sums", "1", True), ("sums", "3", False), ("none", "", False), ("broken", "", False)],
)
async def test_a_model_that_is_not_served_is_not_ready(name: str, version: str, ready: bool, ask: Caller) -> None:
    assert (await ask("ModelReady", oip("ModelReadyRequest")(name=name, version=version))).ready == ready


async def test_metadata_says_what_a_model_takes_and_gives(ask: Caller) -> None:
    answer = await ask("ModelMetadata", oip("ModelMetadataRequest")(name="sums", version="1"))
    assert (answer.name, list(answer.versions), answer.platform) == ("sums", ["1", "2"], "onnxruntime_onnx")
    described = [(each.name, each.datatype, list(each.shape)) for each in [*answer.inputs, *answer.outputs]]
    assert described == [(name, "FP32", [-1, 3]) for name in ("left", "right", "sum", "product")]
    with pytest.raises(NotFound, match="sums"):
        await ask("ModelMetadata", oip("ModelMetadataRequest")(name="sumz"))


async def test_the_index_lists_every_version_with_its_state(ask: Caller) -> None:
    answer = await ask("RepositoryIndex", oip("RepositoryIndexRequest")())
    states = {(each.name, each.version): (each.state, each.reason) for each in answer.models}
    assert states["sums", "1"] == states["sums", "2"] == ("READY", "")
    assert states["broken", "1"][0] == "UNAVAILABLE"
    assert states["broken", "1"][1]
    answer = await ask("RepositoryIndex", oip("RepositoryIndexRequest")(ready=True))
    assert {each.name for each in answer.models} == {name for name, _ in states} - {"broken"}
    with pytest.raises(BadInput, match="repository_name"):
        await ask("RepositoryIndex", oip("RepositoryIndexRequest")(repository_name="other"))
