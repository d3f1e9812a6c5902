"""What tests of the sources share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ortmesh.serving.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "models")
