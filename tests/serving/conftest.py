"""What tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ortmesh.serving.sources import fetching
from tests.serving.breakable import Faults
from tests.serving.stand_in import StandIn, serving


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The other side of every source. Only waiting is shortened."""
    monkeypatch.setattr(fetching, "FIRST_DELAY_SECONDS", 0.001)
    with serving() as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Sessions are opened behind a stand-in that fails as this says."""
    made = Faults()
    monkeypatch.setattr("onnxruntime.InferenceSession", made.open)
    return made
