"""The models that the demo needs: pulled, found, or missed aloud."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from demo.failure import DemoFailed
from demo.models import Had, Models, default_cards, pull_all
from demo.steps import Steps
from ortmesh.serving.cards import Card
from ortmesh.serving.store import Store


@pytest.fixture
def steps() -> Steps:
    return Steps(Console(file=io.StringIO(), width=200))


def card(name: str, file: Path) -> Card:
    source = {"uri": f"file:{file}"}
    return Card.model_validate({"name": name, "family": "nlp", "sources": [source], "files": {"weights": None}})


def test_a_model_that_cannot_be_had_is_said_and_spares_the_others(tmp_path: Path, steps: Steps) -> None:
    (tmp_path / "weights").write_bytes(b"numbers")
    there, gone = card("there", tmp_path / "weights"), card("gone", tmp_path / "nowhere" / "weights")
    models = pull_all([gone, there], Store(tmp_path / "store"), steps)
    assert [(had.card.name, had.nbytes > 0, had.new) for had in models.had] == [("there", True, True)]
    assert "nowhere" in models.missing["gone"]
    assert "gone can't be had" in steps.console.file.getvalue()  # type: ignore[attr-defined]


def test_without_any_model_the_demo_fails_with_the_cause(tmp_path: Path, steps: Steps) -> None:
    with pytest.raises(DemoFailed, match="nowhere"):
        pull_all([card("gone", tmp_path / "nowhere" / "weights")], Store(tmp_path / "store"), steps)


def test_what_was_pulled_before_is_found(tmp_path: Path, steps: Steps) -> None:
    (tmp_path / "weights").write_bytes(b"numbers")
    store = Store(tmp_path / "store")
    for new in (True, False):
        (had,) = pull_all([card("there", tmp_path / "weights")], store, steps).had
        assert had.new is new


def test_a_task_needs_its_default_model_and_the_partners_of_that() -> None:
    cards = {card.name: card for card in default_cards()}
    lines, reader, turner = (cards[name] for name in ("ppocr-v6-det", "ppocr-v6-rec", "ppocr-v6-cls"))
    every = Models(tuple(Had(card, Path(), 0, False) for card in (lines, reader, turner)))
    assert every.serve("vision", "read_text")
    assert not every.serve("vision", "classify")
    assert not Models(every.had[:2]).serve("vision", "read_text")
