"""`ortmesh models` and `ortmesh pull`: from the mesh, from the store, into the store."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import NoReturn

import onnx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from onnx import TensorProto, helper
from rich.console import Console

from ortmesh import catalogue
from ortmesh.cli import known, steps
from ortmesh.models.v1 import models_pb2
from ortmesh.serving.cards import Card, Quality, Source
from ortmesh.serving.digests import sha256_of
from ortmesh.serving.sources.fetching import Step
from ortmesh.serving.store import Store
from tests.cli.conftest import Mesh, Run, info, model, status

NOBODY = "127.0.0.1:9"
"""The discard port, on which no mesh listens."""
NOT_NAMED = {"models": {command: {"address": NOBODY} for command in ("list", "show")}}
"""The default address of these commands, as Click's `default_map`: another test's mesh may be at the usual one."""


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """A graph that doubles its input, [batch, 3]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    file = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store, where ORTMESH_MODELS says."""
    monkeypatch.setenv("ORTMESH_MODELS", str(tmp_path / "models"))
    return Store(tmp_path / "models")


@pytest.fixture
def here(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> str:
    """The mesh's address, which nobody names: it is this machine's."""
    monkeypatch.delenv("ORTMESH_ADDRESS")
    return mesh.address


def test_the_meshs_models_are_listed_page_by_page(mesh: Mesh, run: Run) -> None:
    failed = model("whisper", models_pb2.MODEL_STATE_FAILED)
    failed.state_reason = "encoder.onnx is damaged"
    mesh.answers["ListModels"] = [
        models_pb2.ListModelsResponse(models=[model("minilm")], next_page_token="2"),
        models_pb2.ListModelsResponse(models=[failed]),
    ]
    result = run("models", "list", "--family", "nlp")
    assert result.exit_code == 0
    assert [request.page_token for request in mesh.requests] == ["", "2"]
    assert mesh.requests[0].family == "nlp"
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["minilm@1", "*", "nlp", "embed", "READY"] in rows
    assert "FAILED" in result.stdout
    assert "encoder.onnx is damaged" in result.stdout


def test_one_model_is_shown_with_its_tensors(mesh: Mesh, run: Run) -> None:
    shown = model("minilm")
    shown.inputs.add(name="input_ids", datatype="INT64", shape=[-1, -1], batch_axis=0)
    shown.outputs.add(name="embedding", datatype="FP32", shape=[-1, 384], batch_axis=0)
    shown.provider, shown.max_batch_size, shown.license = "CPUExecutionProvider", 64, "Apache-2.0"
    mesh.answers["GetModel"] = shown
    out = run("models", "show", "minilm").stdout
    assert "minilm@1 (the default version)" in out
    assert "input_ids  INT64 [any, any]" in out
    assert "embedding  FP32 [any, 384]" in out
    assert "CPUExecutionProvider" in out
    assert "up to 64 rows" in out


def test_of_a_model_with_an_engine_its_texts_are_told(mesh: Mesh, run: Run) -> None:
    shown = model("smollm2")
    shown.card_json = json.dumps({"runtime": {"engine": {"slots": 8, "context": 4096}}})
    shown.inputs.add(name="prompt", datatype="INT64", shape=[-1, -1], batch_axis=0)
    shown.max_batch_size, shown.batching.policy = 32, "in order of arrival"
    shown.provider = "CPUExecutionProvider"
    mesh.answers["GetModel"] = shown
    out = run("models", "show", "smollm2").stdout
    assert "4,096 tokens a text" in out
    assert "up to 8 texts side by side" in out
    assert "16,384 tokens of all texts together" in out
    assert "for as many tokens as there are" in out
    assert not any(word in out for word in ("rows", "takes", "batches"))
    shown.provider = "CUDAExecutionProvider"
    assert "of the device for 36,864 tokens" in run("models", "show", "smollm2").stdout


def test_one_row_is_one(mesh: Mesh, run: Run) -> None:
    shown = model("minilm")
    shown.max_batch_size = 1
    mesh.answers["GetModel"] = shown
    assert "up to 1 row " in run("models", "show", "minilm").stdout


def test_a_model_that_the_mesh_does_not_have_is_an_error(mesh: Mesh, run: Run) -> None:
    mesh.answers["GetModel"] = status("NOT_FOUND", "no model 'x'; near names: y", info("MODEL_NOT_FOUND"))
    result = run("models", "show", "x")
    assert result.exit_code == 1
    assert "NOT_FOUND: no model 'x'; near names: y" in result.stderr


def test_a_model_that_no_mesh_has_since_its_card_is_wrong_is_told(
    mesh: Mesh, run: Run, store: Store, here: str, onnx_file: Path
) -> None:
    """Nobody can serve it: which family it is of stands in the card."""
    run("models", "add", onnx_file, "--name", "double", "--family", "nlp")
    card = store.folder("double", "1") / "card.yaml"
    card.write_text(card.read_text() + "batchin: {max_rows: 4}\n")
    mesh.answers["GetModel"] = status("NOT_FOUND", "no model 'double'", info("MODEL_NOT_FOUND"))
    unnamed = {"models": {"show": {"address": here}}}
    told = run("models", "show", "double", default_map=unnamed).stderr
    assert f"not usable: {card.parent}: card.yaml: batchin: there is no such key; did you mean batching?" in told
    assert "NOT_FOUND: no model 'double'" in told
    assert "not usable" not in run("models", "show", "other", default_map=unnamed).stderr
    assert "not usable" not in run("models", "show", "double", "--address", here).stderr


@pytest.mark.parametrize("served", [[model("minilm")], []], ids=["others", "none"])
@pytest.mark.parametrize("which", [(), ("--task", "generate")], ids=["all", "for a task"])
def test_beside_the_models_of_this_machines_mesh_is_what_it_can_not_have(
    mesh: Mesh, run: Run, store: Store, here: str, served: list[models_pb2.Model], which: tuple[str, ...]
) -> None:
    (store.root / "broken" / "1").mkdir(parents=True)
    mesh.answers["ListModels"] = models_pb2.ListModelsResponse(models=[] if which else served)
    listed = run("models", "list", *which, default_map={"models": {"list": {"address": here}}})
    assert f"not usable: {store.root / 'broken' / '1'}: " in listed.stderr
    assert "not usable" not in run("models", "list", *which, "--address", here).stderr


def test_a_model_for_which_this_machines_mesh_has_no_service_needs_another_start(
    mesh: Mesh, run: Run, store: Store, here: str, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "DEFAULT_ADDRESS", here)
    add = ("models", "add", onnx_file, "--name", "double", "--family", "nlp")
    told = "the running mesh was started without nlp: end it, and start `ortmesh up` again"
    assert told in run(*add).stderr
    assert not run(*add, "--models", store.root).stderr
    mesh.health.set("ortmesh.nlp.v1.NlpService", HealthCheckResponse.NOT_SERVING)
    assert not run(*add).stderr
    monkeypatch.setattr(known, "DEFAULT_ADDRESS", NOBODY)
    assert not run(*add).stderr


def test_of_a_mesh_that_is_named_nothing_is_told_since_it_serves_another_store(
    mesh: Mesh, run: Run, store: Store, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "DEFAULT_ADDRESS", mesh.address)
    assert not run("models", "add", onnx_file, "--name", "double", "--family", "nlp").stderr
    mesh.answers["GetModel"] = model("double")
    assert str(store.root) not in run("models", "show", "double").stdout


def test_a_store_that_this_user_can_not_read_keeps_no_mesh_from_being_told_of(
    mesh: Mesh, run: Run, store: Store, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's mesh has another store."""

    def forbidden(self: object) -> NoReturn:
        raise PermissionError("Permission denied")

    mesh.answers["ListModels"] = models_pb2.ListModelsResponse(models=[model("minilm")])
    mesh.answers["GetModel"] = model("minilm")
    monkeypatch.setattr(Store, "cards", forbidden)
    monkeypatch.setattr(Path, "is_file", forbidden)
    for command in (("list",), ("show", "minilm")):
        told = run("models", *command, default_map={"models": {command[0]: {"address": here}}})
        assert told.exit_code == 0, told.output
        assert "minilm@1" in told.stdout


def test_where_a_models_card_is_is_shown(mesh: Mesh, run: Run, store: Store, here: str, onnx_file: Path) -> None:
    run("models", "add", onnx_file, "--name", "double", "--family", "nlp", "--version", "1")
    row = ["card", str(store.folder("double", "1") / "card.yaml")]
    mesh.answers["GetModel"] = model("double")
    shown = run("models", "show", "double", default_map={"models": {"show": {"address": here}}}).stdout
    assert row in [line.split() for line in shown.splitlines()]
    shown = run("models", "show", "double", "--models", store.root).stdout
    assert row in [line.split() for line in shown.splitlines()]


@pytest.mark.parametrize("command", [("list",), ("show", "minilm")])
def test_a_mesh_that_answers_is_not_replaced_by_the_store(
    command: tuple[str, ...], mesh: Mesh, run: Run, store: Store
) -> None:
    for method in ("ListModels", "GetModel"):
        mesh.answers[method] = status("UNAVAILABLE", "no healthy upstream")
    result = run("models", *command)
    assert result.exit_code == 1
    assert "error: UNAVAILABLE: no healthy upstream" in result.stderr
    assert "the store holds" not in result.stderr


@pytest.mark.parametrize("command", [("list",), ("show", "double")])
@pytest.mark.parametrize("by", ["--address", "ORTMESH_ADDRESS"])
def test_a_mesh_that_is_named_is_not_replaced_by_the_store_either(
    command: tuple[str, ...], by: str, run: Run, store: Store, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names a mesh asks about that one: what the store holds would be an answer to another question."""
    run("models", "add", onnx_file, "--name", "double", "--family", "nlp")
    option = (by, NOBODY) if by.startswith("--") else ()
    if not option:
        monkeypatch.setenv(by, NOBODY)
    result = run("models", *command, *option)
    assert result.exit_code == 1
    assert f"nothing answers at {NOBODY}" in result.stderr
    assert not result.stdout


def test_an_added_file_is_listed_from_the_store(run: Run, store: Store, onnx_file: Path) -> None:
    added = run("models", "add", onnx_file, "--name", "double", "--family", "nlp")
    assert added.exit_code == 0, added.stderr
    assert "double@1 is in" in added.stdout
    listed = run("models", "list", default_map=NOT_NAMED)
    assert "this is what the store holds" in listed.stderr
    assert "double@1 * nlp tensors only INSTALLED" in " ".join(listed.stdout.split())
    (shown,) = json.loads(run("models", "list", "--json", "--models", store.root).stdout)["models"]
    assert shown["name"] == "double"
    assert json.loads(shown["cardJson"])["family"] == "nlp"


def test_a_second_version_is_the_default_one(run: Run, store: Store, onnx_file: Path) -> None:
    first, second = (run("models", "add", onnx_file, "--name", "double", "--family", "nlp") for _ in range(2))
    assert "means" not in first.stdout
    assert "double now means double@2 (before: double@1)" in second.stdout
    assert "double@2 (the default version)" in run("models", "show", "double", default_map=NOT_NAMED).stdout
    shown = run("models", "show", "double@1", default_map=NOT_NAMED).stdout
    assert "double@1" in shown
    assert "default" not in shown


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--name", "double", "--family", "smell"), "'smell' is no family: they are vision, speech, nlp"),
        (
            ("--name", "Double X", "--family", "nlp"),
            'name: found "Double X", expected 1 to 128 lower-case letters (a-z), digits',
        ),
        (("--name", "double", "--family", "nlp", "--version", "1/2"), 'version: found "1/2", expected 1 to 64 letters'),
    ],
)
def test_a_file_that_cannot_be_added_is_an_error_in_words(
    arguments: tuple[str, ...], why: str, run: Run, store: Store, onnx_file: Path
) -> None:
    result = run("models", "add", onnx_file, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert why in result.stderr


def test_a_file_that_is_no_graph_is_refused_in_words(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    result = run("models", "add", tmp_path / "text.onnx", "--name", "text", "--family", "nlp")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_a_name_that_the_store_does_not_have_lists_what_it_has(run: Run, store: Store, onnx_file: Path) -> None:
    run("models", "add", onnx_file, "--name", "double", "--family", "nlp")
    result = run("models", "show", "triple", default_map=NOT_NAMED)
    assert result.exit_code == 1
    assert "has no triple; it has double@1" in result.stderr


def test_a_name_near_one_of_the_stores_tells_that_one(run: Run, store: Store, onnx_file: Path) -> None:
    for name in ("double", "sum"):
        run("models", "add", onnx_file, "--name", name, "--family", "nlp")
    result = run("models", "show", "dou", default_map=NOT_NAMED)
    assert "has no dou; near names: double@1\n" in result.stderr


def test_an_empty_store_says_how_to_fill_it(run: Run, store: Store) -> None:
    assert "ortmesh pull" in run("models", "list", "--models", store.root).stdout


def test_a_broken_card_is_told_and_the_others_are_listed(run: Run, store: Store, onnx_file: Path) -> None:
    run("models", "add", onnx_file, "--name", "double", "--family", "nlp")
    (store.root / "broken" / "1").mkdir(parents=True)
    result = run("models", "list", "--models", store.root)
    assert "not usable" in result.stderr
    assert "double@1" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--task", "typo"), "no model is for the task 'typo'; there are models for embed"),
        (("--family", "smell"), "'smell' is no family: they are vision, speech, nlp"),
        (("--family", "speech"), "there is no model of the family speech"),
        (("--family", "speech", "--task", "embed"), "no model of the family speech is for the task 'embed'"),
    ],
)
def test_a_filter_that_fits_nothing_says_what_there_is(
    arguments: tuple[str, ...], why: str, mesh: Mesh, run: Run
) -> None:
    everything = models_pb2.ListModelsResponse(models=[model("minilm")])
    mesh.answers["ListModels"] = [models_pb2.ListModelsResponse(), everything]
    result = run("models", "list", *arguments)
    assert result.exit_code == 1
    assert why in result.stderr


def test_a_filter_that_fits_nothing_in_the_store_says_so_too(run: Run, store: Store, onnx_file: Path) -> None:
    where = ("--models", store.root)
    assert "there are none" in run("models", "list", "--task", "embed", *where).stderr
    run("models", "add", onnx_file, "--name", "double", "--family", "nlp")
    result = run("models", "list", "--task", "embed", *where)
    assert result.exit_code == 1
    assert "no model is for the task 'embed'; the models there are called by tensors only" in result.stderr


def test_a_models_origin_and_what_it_is_worth_are_shown(run: Run, store: Store, onnx_file: Path) -> None:
    """Also addresses that are longer than a line."""
    address = "https://example.org/" + "weights/" * 30 + "model.onnx"
    figure = Quality(metric="accuracy, %", value=91.5, source="https://example.org/paper")
    with store.staging() as folder:
        shutil.copy(onnx_file, folder / "model.onnx")
        card = Card(name="pets", family="vision", sources=[Source(uri=address)], quality=[figure], not_for="people")
        store.install(card, folder)
    shown = run("models", "show", "pets", default_map=NOT_NAMED).stdout
    words = [line.partition("  ")[2].strip() for line in shown.splitlines()]
    assert address in "".join(words)
    assert "accuracy, %: 91.5 (https://example.org/paper)" in words
    assert "people" in words


# Removing, and choosing the default


@pytest.fixture
def versions(run: Run, store: Store, onnx_file: Path) -> Store:
    """A store with double@1, double@2 and single@1."""
    for name in ("double", "double", "single"):
        assert run("models", "add", onnx_file, "--name", name, "--family", "nlp").exit_code == 0
    return store


def test_the_default_version_can_be_chosen_and_stays(run: Run, versions: Store, onnx_file: Path) -> None:
    result = run("models", "default", "double@1")
    assert result.exit_code == 0, result.stderr
    assert "double means double@1 (before: double@2)" in result.stdout
    assert versions.default_of("double") == "1"
    added = run("models", "add", onnx_file, "--name", "double", "--family", "nlp").stdout
    assert "double still means double@1; to change it: ortmesh models default double@3" in added
    assert "before" not in run("models", "default", "double@1").stdout
    assert versions.default_of("single") == "1"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("double", "double has the versions 1, 2: name one, e.g. double@1"),
        ("double@7", "double@7 is not in the store"),
        ("triple", "triple is not in the store"),
        ("single@1", "single@1 is not usable"),
        ("../models@double", "is not in the store"),
    ],
)
def test_what_is_not_there_or_not_usable_cannot_be_the_default(key: str, why: str, run: Run, versions: Store) -> None:
    (versions.folder("single", "1") / "card.yaml").write_text("name: [")
    result = run("models", "default", key)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert why in " ".join(result.stderr.split())
    assert not versions.defaults()


def test_a_removed_version_leaves_the_others(run: Run, versions: Store) -> None:
    result = run("models", "remove", "double@2")
    assert result.exit_code == 0, result.stderr
    assert f"removed double@2 from {versions.root}" in result.stdout
    assert "double means double@1 now" in result.stdout
    assert [card.key for card, _ in versions.cards()] == ["double@1", "single@1"]


def test_a_name_is_enough_where_there_is_one_version(run: Run, versions: Store) -> None:
    result = run("models", "remove", "single")
    assert result.exit_code == 0, result.stderr
    assert "removed single@1" in result.stdout
    assert "means" not in result.stdout
    assert not versions.present("single")


def test_a_name_of_several_versions_asks_which(run: Run, versions: Store) -> None:
    result = run("models", "remove", "double")
    assert result.exit_code == 1
    assert "double has the versions 1, 2: name one, e.g. double@1, or say --all" in result.stderr
    assert versions.present("double") == ["1", "2"]
    assert run("models", "remove", "double", "--all").exit_code == 0
    assert not versions.present("double")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("double@7", "double@7 is not in the store"),
        ("double@7", "(versions there: 1, 2)"),
        ("triple", "triple is not in the store"),
        ("triple", "(versions there: none)"),
        ("../models@double", "is not in the store"),
        ("double@..", "is not in the store"),
        ("@1", "is not in the store"),
    ],
)
def test_what_is_not_there_cannot_be_removed(name: str, why: str, run: Run, versions: Store) -> None:
    result = run("models", "remove", name)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert why in " ".join(result.stderr.split())
    assert len(versions.cards()) == 3


def test_a_version_with_a_broken_card_can_be_removed(run: Run, versions: Store) -> None:
    (versions.folder("single", "1") / "card.yaml").write_text("name: [")
    assert run("models", "remove", "single").exit_code == 0
    assert not versions.present("single")


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, onnx_file: Path) -> list[Card]:
    """A catalogue of files on this disk: one that is there, one optional, one that is gone."""

    def card(name: str, file: Path, optional: bool = False, sha256: str | None = None) -> Card:
        source = Source(uri=f"file:{file}", files={"model.onnx": sha256 or sha256_of(onnx_file)})
        return Card(name=name, family="nlp", sources=[source], files={"model.onnx": None}, optional=optional)

    cards = [
        card("gone", onnx_file.with_name("gone.onnx")),
        card("here", onnx_file),
        card("other", onnx_file, optional=True),
    ]
    monkeypatch.setattr(catalogue, "_by_name", lambda: {each.name: each for each in cards})
    return cards


@pytest.mark.usefixtures("shelf")
def test_pull_fetches_what_is_named(run: Run, store: Store) -> None:
    result = run("pull", "here")
    assert result.exit_code == 0, result.output
    assert "✓ here@1" in result.stdout
    assert store.has("here", "1")
    assert "(was there)" in run("pull", "here").stdout


@pytest.mark.usefixtures("shelf")
def test_pull_goes_on_after_a_failure_and_ends_with_1(run: Run, store: Store) -> None:
    result = run("pull")
    assert result.exit_code == 1
    assert "✗ gone@1" in result.stderr
    assert "not fetched: gone@1" in result.stderr
    assert "1 of 2 models" in result.stdout
    assert store.has("here", "1")
    assert not store.has("other", "1")


@pytest.mark.usefixtures("shelf")
def test_pull_takes_the_optional_ones_when_asked(run: Run, store: Store) -> None:
    run("pull", "--optional")
    assert store.has("other", "1")


@pytest.mark.usefixtures("shelf")
def test_an_unknown_name_is_an_error_with_near_ones(run: Run, store: Store) -> None:
    result = run("pull", "hera")
    assert result.exit_code == 1
    assert "did you mean here" in result.stderr


@pytest.mark.usefixtures("shelf")
def test_the_catalogue_is_listed(run: Run, store: Store) -> None:
    run("pull", "here")
    rows = [line.split() for line in run("pull", "--list").stdout.splitlines()]
    assert ["here@1", "nlp", "fetched", "unknown"] in rows
    assert ["other@1", "nlp", "optional", "unknown"] in rows


def test_a_terminal_gets_a_bar_that_fills_while_bytes_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(steps, "out", console)
    with steps.showing_steps("minilm@1") as progress:
        progress(Step("downloading", "a.whl", 0, 2_000_000))
        progress(Step("downloading", "a.whl", 1_000_000, 2_000_000))
        screen.truncate(0)
        progress(Step("downloading", "a.whl", 2_000_000, 2_000_000))
    assert "minilm@1: downloading" in screen.getvalue()
    assert "2.0 of 2.0 MB" in screen.getvalue()


def test_a_pipe_gets_a_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with steps.showing_steps("minilm@1") as progress:
        for done in (0, 1_000_000, 2_000_000):
            progress(Step("downloading", "a.whl", done, 2_000_000))
        progress(Step("installing", "minilm@1"))
    assert capsys.readouterr().out.splitlines() == [
        "minilm@1: downloading a.whl (2.0 MB)",
        "minilm@1: installing minilm@1",
    ]
