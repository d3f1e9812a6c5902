"""The mesh's models, merged from what replicas report."""

from __future__ import annotations

import tracemalloc

import pytest

from ortmesh.errors import NotFound
from ortmesh.models.v1 import models_pb2
from ortmesh_gateway.addresses import Address
from ortmesh_gateway.mesh import NOT_EVERYWHERE, UNREACHABLE, UNROUTED, Mesh, Replica
from tests.gateway.backend import model

ONE, TWO = (Replica("nlp", Address(path=f"/{name}")) for name in ("one", "two"))
VISION = Replica("vision", Address(path="/vision"))
LOADING, FAILED = models_pb2.MODEL_STATE_LOADING, models_pb2.MODEL_STATE_FAILED
READY, UNLOADING = models_pb2.MODEL_STATE_READY, models_pb2.MODEL_STATE_UNLOADING


@pytest.fixture
def mesh() -> Mesh:
    made = Mesh([ONE, TWO, VISION])
    made.routed(["minilm"])
    return made


@pytest.mark.parametrize(
    ("states", "merged"),
    [
        ((LOADING, READY), READY),
        ((FAILED, LOADING), LOADING),
        ((FAILED, UNLOADING), UNLOADING),
        ((FAILED, FAILED), FAILED),
    ],
)
def test_a_model_is_as_ready_as_its_readiest_replica(
    mesh: Mesh, states: tuple[models_pb2.ModelState.ValueType, ...], merged: int
) -> None:
    for replica, state in zip((ONE, TWO), states, strict=True):
        mesh.report(replica, [model("minilm", "nlp", state=state)])
    assert [each.state for each in mesh.models] == [merged]


def test_a_model_is_not_ready_for_callers_before_its_route_is_live(mesh: Mesh) -> None:
    mesh.report(ONE, [model("new", "nlp")])
    (new,) = mesh.models
    assert (new.state, new.state_reason) == (LOADING, UNROUTED)
    assert mesh.clusters() == {"new": "nlp"}
    mesh.routed(["minilm", "new"])
    assert [each.state for each in mesh.models] == [READY]


def test_a_model_is_ready_for_callers_once_every_replica_knows_it(mesh: Mesh) -> None:
    """One that does not know it yet would answer NOT_FOUND; one that loads it answers UNAVAILABLE, which is retried."""
    mesh.report(TWO, [])
    mesh.report(ONE, [model("minilm", "nlp")])
    assert [(each.state, each.state_reason) for each in mesh.models] == [(LOADING, NOT_EVERYWHERE)]
    mesh.report(TWO, [model("minilm", "nlp", state=LOADING)])
    assert [each.state for each in mesh.models] == [READY]


def test_the_models_of_all_families_are_listed_by_name_and_version(mesh: Mesh) -> None:
    mesh.report(ONE, [model("minilm", "nlp", version="2"), model("minilm", "nlp", version="1")])
    mesh.report(VISION, [model("efficientnet", "vision")])
    assert [(each.name, each.version) for each in mesh.models] == [
        ("efficientnet", "1"),
        ("minilm", "1"),
        ("minilm", "2"),
    ]
    assert mesh.clusters() == {"efficientnet": "vision", "minilm": "nlp"}


def test_a_lost_replicas_models_stay_known_and_are_not_ready(mesh: Mesh) -> None:
    """Their calls go on to be UNAVAILABLE while it restarts, instead of NOT_FOUND."""
    mesh.report(ONE, [model("minilm", "nlp")])
    mesh.lose(ONE)
    (lost,) = mesh.models
    assert (lost.state, lost.state_reason, lost.retrying) == (FAILED, UNREACHABLE, True)
    assert mesh.clusters() == {"minilm": "nlp"}
    assert not mesh.ready("nlp")


def test_one_lost_replica_of_two_changes_nothing_for_callers(mesh: Mesh) -> None:
    for replica in (ONE, TWO):
        mesh.report(replica, [model("minilm", "nlp")])
    mesh.lose(ONE)
    assert [each.state for each in mesh.models] == [READY]
    assert mesh.ready("nlp")


def test_a_name_in_two_families_goes_where_it_is_ready(mesh: Mesh) -> None:
    mesh.report(ONE, [model("clip", "nlp", state=LOADING)])
    mesh.report(VISION, [model("clip", "vision")])
    assert mesh.clusters() == {"clip": "vision"}


def test_a_name_alone_means_the_default_version(mesh: Mesh) -> None:
    mesh.report(ONE, [model("minilm", "nlp", version=each, default_version=each == "2") for each in "123"])
    assert mesh.find("minilm").version == "2"
    assert mesh.find("minilm", "3").version == "3"


def test_what_is_not_found_says_what_there_is(mesh: Mesh) -> None:
    mesh.report(ONE, [model("minilm", "nlp"), model("whisper", "nlp")])
    with pytest.raises(NotFound, match=r"no model 'minlm'; near names: minilm$"):
        mesh.find("minlm")
    with pytest.raises(NotFound, match="minilm has no version '7'; it has 1"):
        mesh.find("minilm", "7")


@pytest.mark.parametrize(("name", "version"), [("x" * 32_000_000, ""), ("minilm", "x" * 32_000_000)])
def test_a_name_of_megabytes_costs_and_says_no_more_than_a_long_one(mesh: Mesh, name: str, version: str) -> None:
    mesh.report(ONE, [model("minilm", "nlp")])
    tracemalloc.start()
    try:
        with pytest.raises(NotFound) as caught:
            mesh.find(name, version)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000
    assert len(caught.value.message) < 300
    assert caught.value.resource is not None
    assert len(caught.value.resource[1]) < 300


def test_a_family_is_ready_when_callers_find_a_model_of_it_ready(mesh: Mesh) -> None:
    mesh.report(ONE, [model("new", "nlp")])
    mesh.report(TWO, [])
    assert not mesh.ready("nlp")
    mesh.routed(["minilm", "new"])
    assert not mesh.ready("nlp"), "the other replica answers NOT_FOUND"
    mesh.report(TWO, [model("new", "nlp")])
    assert mesh.ready("nlp")


def test_watchers_hear_of_changes_only(mesh: Mesh) -> None:
    heard = []
    unsubscribe = mesh.watch(lambda: heard.append(len(mesh.models)))
    for _ in range(2):
        mesh.report(ONE, [model("minilm", "nlp")])
    unsubscribe()
    mesh.report(ONE, [])
    assert heard == [1]
