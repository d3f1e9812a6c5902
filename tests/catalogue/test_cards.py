"""The catalogue's cards: every fact that a machine can check."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ortmesh import catalogue
from ortmesh.descriptors import method_names
from ortmesh.errors import NotFound
from ortmesh.serving.cards import Card
from ortmesh.serving.digests import sha256_of
from ortmesh.serving.graph import inspect
from ortmesh.serving.store import Store

CARDS = catalogue.cards()
each_card = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
