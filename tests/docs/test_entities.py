"""docs/entities.md has every type that FindEntities knows."""

from __future__ import annotations

import re

from ortmesh.serving.store import Store
from ortmesh_nlp import patterns
from ortmesh_nlp.spans import types_of
from tests.docs.pages import DOCS, table_rows

PAGE = DOCS / "entities.md"


def test_every_type_of_a_pattern_is_there_in_order() -> None:
    written = [row[0].strip("`") for row in table_rows(PAGE) if row[0].startswith("`")]
    assert written == list(patterns.TYPES)


def test_every_type_of_the_default_model_is_there(store: Store) -> None:
    labels = (store.folder("rampart", "1") / "labels.txt").read_text(encoding="utf-8").splitlines()
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition("## By the model")[2].partition("##")[0]
    assert set(re.findall(r"`([A-Z_]+)`", section)) == set(types_of(labels))
