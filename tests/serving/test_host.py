"""What a service tells of its models while it serves them."""

from __future__ import annotations

from pathlib import Path

from ortmesh.config import ServiceSettings
from ortmesh.serving.host import Host
from ortmesh.serving.store import Store
from ortmesh.telemetry import instruments
from ortmesh.telemetry.series import Labels
from ortmesh_nlp.service import SERVICE, methods
from tests.serving import graphs
from tests.serving.shelf import install


def told(service: Host) -> list[Labels]:
    """The labels of the metric that says on what models run."""
    points = service.telemetry.snapshot()
    return [point.labels for point in points if point.instrument is instruments.MODEL_INFO and point.value == 1]


async def test_metrics_tell_on_what_each_model_runs_and_in_which_precision(tmp_path: Path) -> None:
    """A dashboard sees what has fallen back to the CPU. A model that is not ready runs on nothing."""
    store = Store(tmp_path / "store")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double", precision="f16")
    install(store, tmp_path / "double", name="bound", runtime={"require": "tensorrt"})
    settings = ServiceSettings(family="nlp", address="127.0.0.1:0", store=store.root, drain_seconds=0, grace_seconds=1)
    service = Host(settings, "ortmesh.nlp.v1.NlpService", lambda models: [])
    await service.start()
    try:
        await service.models.until_loaded()
        assert told(service) == [
            {"model": "double", "version": "1", "provider": "CPUExecutionProvider", "precision": "f16"}
        ]
    finally:
        await service.stop()


async def test_a_model_for_a_task_that_the_service_has_not_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double", tasks=["embedd"])
    settings = ServiceSettings(family="nlp", address="127.0.0.1:0", store=store.root, drain_seconds=0, grace_seconds=1)
    service = Host(settings, SERVICE, methods)
    await service.start()
    try:
        await service.models.until_loaded()
        (model,) = service.models.list()
        assert 'tasks: "embedd": there is no such task of nlp; did you mean embed?' in model.state_reason
        assert model.default_for == []
    finally:
        await service.stop()
