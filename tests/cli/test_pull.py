"""`ortmesh pull`: which models of the catalogue it means. What fetching does is tested with the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from ortmesh import catalogue
from ortmesh.cli import known
from ortmesh.cli.plan import FAMILIES
from ortmesh.serving import fetch
from ortmesh.serving.store import Store
from tests.cli.conftest import Mesh, Run


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
    named = [line.split()[1] for line in done.output.splitlines()[:3]]
    assert named == ["ppocr-v6-det@1", "ppocr-v6-rec@1", "ppocr-v6-cls@1"]
    assert "3 of 3 models" in done.output


def test_companions_are_those_that_a_card_names_and_come_once() -> None:
    def names(*chosen: str) -> list[str]:
        return [card.name for card in catalogue.with_companions(map(catalogue.card, chosen))]

    assert names("hibari", "lid-176", "hibari-spelling") == ["hibari", "hibari-spelling", "lid-176"]
    assert catalogue.with_companions(catalogue.cards()) == catalogue.with_companions(
        catalogue.with_companions(catalogue.cards())
    )


def test_a_model_that_comes_along_is_not_made_anew(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its card may have been edited; who names another one did not mean it."""
    made: dict[str, bool] = {}
    monkeypatch.setattr(fetch, "pull", lambda card, store, progress, *, again: made.update({card.name: again}))
    assert run("pull", "hibari", "--again", "--models", store.root).exit_code == 0
    assert made == {"hibari": True, "hibari-spelling": False}


def test_a_mesh_that_was_started_without_the_family_is_told(
    mesh: Mesh, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORTMESH_ADDRESS")
    monkeypatch.setattr(known, "DEFAULT_ADDRESS", mesh.address)
    monkeypatch.setenv("ORTMESH_MODELS", str(store.root))
    assert "the running mesh was started without speech: " in run("pull", "silero-vad").stderr
