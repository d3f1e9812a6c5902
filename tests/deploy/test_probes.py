"""The probes of the manifests, asked of the real processes: started as the manifests say, on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ortmesh.serving.store import Store
from tests.deploy.manifests import Objects
from tests.deploy.pods import Process, passes, port, until

QUICK_MODEL = "lid-176"
Start = Callable[..., Process]


@pytest.fixture
def start(local: Objects, tmp_path: Path) -> Iterator[Start]:
    """`start("ortmesh-nlp", "server", ORTMESH_…=…)`: a container's process, ended after the test."""
    with ExitStack() as stack:

        def started(workload: str, container: str, **here: str) -> Process:
            log = tmp_path / f"{workload}-{container}.log"
            process = Process(local, local.workload(workload).container(container), here, log)
            stack.callback(process.end)
            return process

        yield started


@pytest.mark.parametrize("family", ["vision", "speech"])
def test_a_service_without_a_usable_model_lives_and_gets_no_calls(
    local: Objects, start: Start, tmp_path: Path, family: str
) -> None:
    """Killed and started anew it would have none either."""
    server, number = local.workload(f"ortmesh-{family}").container("server"), port()
    (tmp_path / "store").mkdir()
    start(f"ortmesh-{family}", "server", **service_here(number, tmp_path / "store"))
    until(server["startupProbe"], number)
    until(server["livenessProbe"], number)
    assert not passes(server["readinessProbe"], number)


def test_a_service_gets_calls_from_its_first_model_until_its_drain(
    local: Objects, start: Start, store: Store, tmp_path: Path
) -> None:
    server, number = local.workload("ortmesh-nlp").container("server"), port()
    process = start("ortmesh-nlp", "server", **service_here(number, store.root), ORTMESH_SERVICE_ONLY=QUICK_MODEL)
    until(server["readinessProbe"], number)
    process.terminate()
    until(server["readinessProbe"], number, expected=False)
    until(server["livenessProbe"], number)


def test_a_gateway_gets_calls_once_it_knows_a_family_and_keeps_them(
    local: Objects, start: Start, store: Store, tmp_path: Path
) -> None:
    """A family that is away, even the only one, is told to callers with a reason, and so is a directory that is away:
    the pod stays in its Service, since Envoy serves."""
    workload, number, service = local.workload("ortmesh-gateway"), port(), port()
    proxy, gateway = workload.container("proxy"), workload.container("gateway")
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as runtime:
        here = {
            "ORTMESH_GATEWAY_ADDRESS": f"127.0.0.1:{number}",
            "ORTMESH_GATEWAY_RUNTIME": runtime,
            "ORTMESH_GATEWAY_BACKENDS": f"nlp=localhost:{service},vision=localhost:{port()}",
            "ORTMESH_GATEWAY_DRAIN_SECONDS": "0",
        }
        metrics = {"ORTMESH_TELEMETRY_METRICS_PORT": "0", "ORTMESH_TELEMETRY_METRICS_HOST": "127.0.0.1"}
        with ExitStack() as stack:
            directory = start("ortmesh-gateway", "gateway", **here, **metrics)
            stack.callback(start("ortmesh-gateway", "proxy", **here).end)
            until(gateway["livenessProbe"], number)
            until(proxy["livenessProbe"], number)
            assert not passes(proxy["startupProbe"], number)

            nlp = start("ortmesh-nlp", "server", **service_here(service, store.root), ORTMESH_SERVICE_ONLY=QUICK_MODEL)
            until(proxy["startupProbe"], number)
            until(proxy["readinessProbe"], number)

            nlp.end()
            directory.end()
            until(gateway["livenessProbe"], number, expected=False)
            until(proxy["readinessProbe"], number)
            until(proxy["livenessProbe"], number)


def service_here(number: int, store: Path) -> dict[str, str]:
    """What differs on this machine: the ports, the store that the image has, and no metrics that others could see."""
    return {
        "ORTMESH_SERVICE_ADDRESS": f"127.0.0.1:{number}",
        "ORTMESH_MODELS": str(store),
        "ORTMESH_TELEMETRY_METRICS_PORT": "0",
        "ORTMESH_TELEMETRY_METRICS_HOST": "127.0.0.1",
    }
