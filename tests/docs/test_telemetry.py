"""docs/telemetry.md has every metric, and what the code says of it."""

from __future__ import annotations

import json
import logging

from ortmesh.config import TelemetrySettings
from ortmesh.serving.batcher.book import CostBook
from ortmesh.telemetry import Telemetry, instruments
from ortmesh.telemetry.logs import JsonLines
from ortmesh.telemetry.prometheus import prometheus_name
from ortmesh.telemetry.series import Instrument
from tests.docs.pages import DOCS, table_rows

PAGE = DOCS / "telemetry.md"
KINDS = {"updown": "gauge"}


def test_every_metric_is_there_and_no_other() -> None:
    written = {row[0]: row[1:] for row in table_rows(PAGE) if len(row) == 5 and row[0].startswith("`")}
    assert {name: [row[0], row[1], row[3]] for name, row in written.items()} == {
        f"`{each.name}`": [f"`{in_prometheus(each)}`", KINDS.get(each.kind, each.kind), each.description]
        for each in all_instruments()
    }


def test_the_labels_are_those_of_the_series() -> None:
    process = Telemetry(TelemetrySettings(), "ortmesh-test")
    process.rpc("/a.B/C").end("OK", 0.1)
    meter = process.meter("m", "1")
    meter.batch(1, 0.0, 0.1)
    meter.queued(0.1, "busy")
    meter.dropped("expired")
    meter.state("READY")
    costs = CostBook((1,))
    costs.measured({(1, 1): 0.1})
    meter.costs(costs)
    meter.texts.held(1, reserved=9, kept=0, budget=9)
    meter.texts.first(0.1)
    meter.texts.ended("stop", 0.1)
    written = {row[0].strip("`"): row[3] for row in table_rows(PAGE) if len(row) == 5}
    for point in process.snapshot():
        assert written[point.instrument.name] == labels(list(point.labels)), point.instrument.name


def test_the_fields_of_a_log_line_are_there() -> None:
    written = {name.strip(" `") for row in table_rows(PAGE) if len(row) == 2 for name in row[0].split(",")}
    error = ValueError("x")
    record = logging.LogRecord("a", logging.ERROR, "f", 1, "text", None, exc_info=(ValueError, error, None))
    line = json.loads(JsonLines("ortmesh-test").format(record))
    assert set(line) | {"trace_id", "span_id"} == written - {"field"}


def all_instruments() -> list[Instrument]:
    return [each for each in vars(instruments).values() if isinstance(each, Instrument)]


def in_prometheus(instrument: Instrument) -> str:
    return prometheus_name(instrument) + ("_total" if instrument.kind == "counter" else "")


def labels(names: list[str]) -> str:
    if not names:
        return "none"
    if names[0].startswith("rpc."):
        return "the method's"
    return ", ".join(f"`{name}`" for name in names)
