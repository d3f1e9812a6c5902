"""Every method that the proto promises is bound to a task."""

from __future__ import annotations

from ortmesh import descriptors
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from ortmesh_vision.service import SERVICE, methods


def test_every_method_of_the_proto_is_bound(store: Store) -> None:
    rows = methods(Models(store, "vision", threads=1, meter=lambda *_: NoMeter()))
    assert {row.path for row in rows} == {f"/{SERVICE}/{name}" for name in descriptors.service(SERVICE).methods_by_name}
    assert {row.max_request_bytes for row in rows} == {32 << 20}
