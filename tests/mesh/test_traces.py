"""One sampled call leaves one trace: caller, gateway, service, queue, compute."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ortmesh.client import Client
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.serving.store import Store
from tests.collector import Collector
from tests.mesh.conftest import START_SECONDS, RunningMesh

TRACE_ID, CALLERS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield made
    made.close()


def test_the_spans_of_a_call_form_one_chain(collector: Collector, store: Store, tmp_path: Path) -> None:
    """An unsampled call leaves none."""
    mesh = RunningMesh(store.root, Path(tempfile.mkdtemp(prefix="om-", dir="/tmp")), "native", "--families", "nlp")
    try:
        mesh.until_line("^ready in", seconds=START_SECONDS)
        with Client(mesh.address) as client:
            for flags, trace in (("00", "1" * 32), ("01", TRACE_ID)):
                metadata = [("traceparent", f"00-{trace}-{CALLERS_SPAN}-{flags}")]
                client.nlp.Embed(EmbedRequest(texts=["traced"]), metadata=metadata)
        until = time.monotonic() + 60
        while len(collector.spans) < 4 and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        assert mesh.stop() == 0
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
    found = {collector.services[span.span_id.hex()] + " " + span.name.split("/")[-1]: span for span in collector.spans}
    gateway = next(span for name, span in found.items() if name.startswith("ortmesh-gateway"))
    service = found["ortmesh-nlp Embed"]
    assert gateway.parent_span_id.hex() == CALLERS_SPAN
    assert service.parent_span_id == gateway.span_id
    for child in ("queue", "compute"):
        assert found[f"ortmesh-nlp {child}"].parent_span_id == service.span_id
