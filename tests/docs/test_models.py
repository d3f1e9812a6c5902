"""docs/models.md describes every key of a card, and the README the default models."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ortmesh import catalogue
from ortmesh.serving.cards import Batching, Card, License, Quality, Runtime, Source, TensorSpec
from ortmesh.serving.needs import Needs
from ortmesh_nlp import chat, detect_language, embed, find_entities
from ortmesh_speech import embed_speaker, identify_language, interim, recognizer, speaking, voice_activity
from ortmesh_vision import classify, detect, read_text
from tests.docs.pages import DOCS, ROOT, blocks, table_rows

PAGE = DOCS / "models.md"
PARTS: tuple[type[BaseModel], ...] = (Card, Source, TensorSpec, Batching, Runtime)


def test_every_key_of_a_card_is_described_and_no_other() -> None:
    keys = {key for part in PARTS for key in part.model_fields}
    keys |= {f"license.{key}" for key in License.model_fields} | set(Quality.model_fields)
    described = {key for row in table_rows(PAGE) for key in re.findall(r"`([\w.]+)`", row[0])}
    assert described == keys


def test_the_example_is_a_card() -> None:
    for block in blocks(PAGE):
        if block.language == "yaml":
            Card.model_validate(yaml.safe_load(block.text))


@pytest.mark.parametrize(
    ("task", "needs"),
    [
        ("embed, of nlp", embed.NEEDS),
        ("classify", classify.NEEDS),
        ("detect", detect.NEEDS),
        ("read_text", read_text.FINDER),
        ("its recognizer", read_text.RECOGNIZER),
        ("its orienter", read_text.ORIENTER),
        ("recognize", recognizer.NEEDS),
        ("detect_speech", voice_activity.NEEDS),
        ("streaming_recognize", interim.NEEDS),
        ("embed_speaker", embed_speaker.NEEDS),
        ("identify_language", identify_language.NEEDS),
        ("synthesize", speaking.VOICE),
        ("its speller", speaking.SPELLER),
        ("detect_language", detect_language.NEEDS),
        ("find_entities", find_entities.NEEDS),
        ("generate, count_tokens", chat.NEEDS),
    ],
)
def test_what_a_task_needs_is_described(task: str, needs: Needs[Any]) -> None:
    """Its tensors, its constants and their defaults; in bold what has none."""
    (row,) = [row for row in table_rows(PAGE) if row[0] == task and len(row) == 4]
    assert {*needs.inputs, *needs.may_take} <= set(re.findall(r"`(\w+)`", row[1]))
    assert {*needs.outputs, *needs.may_give} == set(re.findall(r"`(\w+)`", row[2]))
    for name, field in needs.constants.model_fields.items():
        described = re.search(rf"(\*\*)?`{name}`(?:\*\*)?(?: \(`?([\w.]+))?", row[3])
        assert described, name
        assert bool(described[1]) == field.is_required(), name
        if not field.is_required() and name != "channels":
            assert described[2] == f"{field.default}", name


def test_the_readme_names_every_default_model_with_its_licence() -> None:
    rows = [row for row in table_rows(ROOT / "README.md") if len(row) == 6]
    for card in catalogue.cards():
        if not card.optional:
            (licences,) = {row[3] for row in rows if re.search(rf"{card.name}\b", row[2])}
            assert card.license.weights == licences
