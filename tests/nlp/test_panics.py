"""Tokenizers that panic, which is no `Exception` of Python's: as they are read, and at a text."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from ortmesh.errors import ModelFailed
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.needs import asset
from ortmesh.serving.store import Store
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh.serving.types import NoMeter
from tests.serving import graphs
from tests.serving.shelf import install, until

UNREADABLE = {"type": "Precompiled", "precompiled_charsmap": "AQAAAAD/////AAAA"}
"""What T5's and its kin's tokenizers do to characters, cut off."""


def tokenizer(**parts: Any) -> str:
    made = json.loads(Tokenizer.from_str(json.dumps(WORDS)).to_str())
    return json.dumps(made | parts)


WORDS = {"model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}


@pytest.fixture
def shelf(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double", tasks=["embed"])
    (store.folder("double", "1") / "tokenizer.json").write_text(tokenizer(normalizer=UNREADABLE))
    return store


@pytest.fixture
def models(shelf: Store) -> Models:
    return Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter())


async def test_a_model_whose_file_panics_has_failed_and_says_why(models: Models, call: Call) -> None:
    models.require("embed", lambda model: asset(model, load_tokenizer, "tokenizer.json"))
    async with models:
        await asyncio.wait_for(models.until_loaded(), 60)
        with pytest.raises(ModelFailed, match=r"'tokenizer.json' can't be read: .*precompiled_charsmap"):
            models.named("double", "", call)


async def test_a_model_whose_check_panics_has_failed_and_can_be_removed(
    models: Models, shelf: Store, call: Call
) -> None:
    models.require("embed", lambda model: load_tokenizer(model.folder / "tokenizer.json"))
    async with models:
        await asyncio.wait_for(models.until_loaded(), 60)
        with pytest.raises(ModelFailed, match="precompiled_charsmap"):
            models.named("double", "", call)
        shelf.remove("double", "1")
        await until(models, lambda: not models.list())
