"""`ortmesh pull`: which models of the catalogue it means. What fetching does is tested with the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from ortmesh import catalogue
from ortmesh.cli.plan import FAMILIES
from ortmesh.serving.store import Store
from tests.cli.conftest import Run


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_means_its_default_models(run: Run, store: Store, family: str) -> None:
    """They are all there, so that nothing is fetched: what is told is which ones were meant."""
    wanted = [card for card in catalogue.cards() if card.family == family and not card.optional]
    done = run("pull", "--family", family, "--models", store.root)
    assert done.exit_code == 0, done.output
    for card in wanted:
        assert f"{card.key} (was there)" in done.output
    assert f"{len(wanted)} of {len(wanted)} models" in done.output


def test_families_add_up_and_narrow_the_list(run: Run, tmp_path: Path) -> None:
    done = run("pull", "--list", "--family", "nlp", "--family", "speech", "--models", tmp_path)
    listed = {card.name for card in catalogue.cards() if card.key in done.output}
    assert listed == {card.name for card in catalogue.cards() if card.family in ("nlp", "speech")}


def test_a_name_that_is_no_family_is_told(run: Run, tmp_path: Path) -> None:
    done = run("pull", "--family", "text", "--models", tmp_path)
    assert done.exit_code == 1
    assert "--family text: the families are vision, speech, nlp" in done.output


def test_a_model_of_another_family_is_told(run: Run, tmp_path: Path) -> None:
    """Else nothing would be fetched, and nothing said."""
    done = run("pull", "silero-vad", "--family", "nlp", "--models", tmp_path)
    assert done.exit_code == 1
    assert "silero-vad is of the family speech" in done.output


def test_a_model_comes_with_those_that_it_works_with(run: Run, store: Store) -> None:
    """Alone it would be ready, and no picture could be read."""
    done = run("pull", "ppocr-v6-det", "--models", store.root)
    assert done.exit_code == 0, done.output
    assert [line.split()[1] for line in done.output.splitlines()[:3]] == [
        "ppocr-v6-det@1",
        "ppocr-v6-rec@1",
        "ppocr-v6-cls@1",
    ]
    assert "3 of 3 models" in done.output
