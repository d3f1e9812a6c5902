"""What `ortmesh up` decides before it starts anything: families, replicas, sockets, port, folder, hints."""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path

import pytest

from ortmesh.cli.hints import addresses, commands, reachable
from ortmesh.cli.plan import BadPlan, Plan, make_plan, read_families, read_replicas
from ortmesh.cli.runtime import InUse, claim_port, runtime_folder

STORE = Path("/srv/models")
FOLDER = Path("/run/ortmesh")


def _plan(replicas: dict[str, int], host: str = "127.0.0.1", metrics_port: int | None = None) -> Plan:
    tasks = [("nlp", "embed"), ("vision", "classify"), ("speech", "recognize")]
    return make_plan(replicas, tasks, host=host, port=8080, folder=FOLDER, store=STORE, metrics_port=metrics_port)


def test_each_replica_has_a_socket_of_its_own_and_the_gateway_knows_all() -> None:
    plan = _plan({"vision": 2, "nlp": 1})
    assert plan.names == ["vision-0", "vision-1", "nlp", "gateway", "proxy"]
    assert [service.address for service in plan.services] == [
        "unix:/run/ortmesh/vision-0.sock",
        "unix:/run/ortmesh/vision-1.sock",
        "unix:/run/ortmesh/nlp.sock",
    ]
    service, gateway, proxy = (shlex.join(part.command) for part in (plan.services[0].part, plan.gateway, plan.proxy))
    assert "-m ortmesh_vision --listen unix:/run/ortmesh/vision-0.sock --models /srv/models" in service
    assert "-m ortmesh_gateway.proxy --listen 127.0.0.1:8080" in proxy
    for backend in ("vision=unix:/run/ortmesh/vision-1.sock", "nlp=unix:/run/ortmesh/nlp.sock"):
        assert f"--backend {backend}" in gateway
        assert f"--backend {backend}" in proxy
    assert plan.gateway.environment == plan.proxy.environment, "they share a folder"
    assert plan.families == ("vision", "nlp")


def test_each_part_has_a_metrics_port_of_its_own() -> None:
    """The variable is inherited: without this the second process would fail on the first one's port."""

    def ports(plan: Plan) -> list[str]:
        parts = [*(service.part for service in plan.services), plan.gateway]
        return [part.environment["ORTMESH_TELEMETRY_METRICS_PORT"] for part in parts]

    assert ports(_plan({"vision": 1, "nlp": 1}, metrics_port=9100)) == ["9100", "9101", "9102"]
    assert ports(_plan({"vision": 1, "nlp": 1}, metrics_port=0)) == ["0", "0", "0"]
    assert ports(_plan({"vision": 1, "nlp": 1})) == ["", "", ""]


def test_a_folder_too_deep_for_sockets_is_an_error() -> None:
    with pytest.raises(BadPlan, match="choose a shorter folder with --runtime"):
        make_plan({"nlp": 1}, [], host="h", port=1, folder=Path("/" + "x" * 100), store=STORE, metrics_port=None)


def test_a_folder_too_deep_for_the_gateways_sockets_is_an_error_too() -> None:
    """Those have the longest names: without this the gateway alone would fail, three times."""
    folder = Path("/" + "x" * 89)
    with pytest.raises(BadPlan, match=r"gateway/directory\.sock.*choose a shorter folder with --runtime"):
        make_plan({"nlp": 1}, [], host="h", port=1, folder=folder, store=STORE, metrics_port=None)


def test_ports_of_the_metrics_that_are_too_high_are_an_error() -> None:
    assert _plan({"vision": 2, "nlp": 1}, metrics_port=65532).names[-1] == "proxy"
    with pytest.raises(BadPlan, match="--metrics-port 65533: there are no 4 ports from there on"):
        _plan({"vision": 2, "nlp": 1}, metrics_port=65533)


@pytest.mark.parametrize(
    ("host", "address"), [("localhost", "localhost:8080"), ("::1", "[::1]:8080"), ("[::1]", "[::1]:8080")]
)
def test_the_address_is_written_as_callers_write_it(host: str, address: str) -> None:
    assert _plan({"nlp": 1}, host=host).address == address


@pytest.mark.parametrize(
    ("listens", "called"), [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
)
def test_an_address_for_listening_only_is_called_on_this_machine(listens: str, called: str) -> None:
    assert reachable(listens) == called


def test_all_families_with_models_are_served_unless_some_are_named() -> None:
    assert read_families([], ["nlp", "vision"], STORE) == ["vision", "nlp"]
    assert read_families(["nlp,speech"], ["nlp", "vision", "speech"], STORE) == ["speech", "nlp"]


@pytest.mark.parametrize(
    ("asked", "installed", "why"),
    [
        (["smell"], ["nlp"], "the families are vision, speech, nlp"),
        (["speech"], ["nlp"], "no models for speech in /srv/models: run `ortmesh pull`"),
        ([], [], "no models for any family"),
    ],
)
def test_a_family_that_could_never_be_ready_is_an_error(asked: list[str], installed: list[str], why: str) -> None:
    with pytest.raises(BadPlan, match=why):
        read_families(asked, installed, STORE)


def test_replicas_are_one_unless_said() -> None:
    assert read_replicas(["vision", "nlp"], ["vision=3"]) == {"vision": 3, "nlp": 1}


@pytest.mark.parametrize("text", ["vision", "vision=", "vision=0", "vision=65", "vision=x", "speech=2", "=2"])
def test_a_wrong_number_of_replicas_is_an_error(text: str) -> None:
    with pytest.raises(BadPlan, match="--replicas"):
        read_replicas(["vision", "nlp"], [text])


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InUse, match=f"port {port} on 127.0.0.1 is used by another program"):
            claim_port("127.0.0.1", port)


def test_port_0_gives_a_free_one() -> None:
    assert claim_port("127.0.0.1", 0) > 0


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(InUse, match=r"nothing can listen on 192\.0\.2\.1:8080"):
        claim_port("192.0.2.1", 8080)


def test_a_folder_belongs_to_one_mesh_at_a_time(tmp_path: Path) -> None:
    with (
        runtime_folder(tmp_path / "run") as folder,
        pytest.raises(InUse, match=rf"another mesh \(process {os.getpid()}\)"),
        runtime_folder(tmp_path / "run"),
    ):
        pass
    assert folder.stat().st_mode & 0o777 == 0o700
    with runtime_folder(tmp_path / "run"):
        pass


def test_the_folder_lies_below_the_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with runtime_folder(None) as folder:
        assert folder == tmp_path / "ortmesh"


@pytest.mark.parametrize("session", ["", "/nowhere"])
def test_without_a_session_the_folder_is_a_temporary_one(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    with runtime_folder(None) as folder:
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_the_hints_name_the_addresses_and_three_commands() -> None:
    plan = _plan({"vision": 1, "nlp": 1})
    assert ("nlp", "unix:/run/ortmesh/nlp.sock") in addresses(plan)
    grpcurl, call, python = commands(plan)
    assert grpcurl.startswith("grpcurl -plaintext")
    assert "127.0.0.1:8080 ortmesh.nlp.v1.NlpService/Embed" in grpcurl
    assert call == 'ortmesh call nlp embed "good morning" "good evening" "the train is late"'
    assert python.startswith('python -c "from ortmesh.client import Client')


def test_the_hints_name_the_metrics_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for port in (None, 0):
        assert not [name for name, _ in addresses(_plan({"nlp": 1}, metrics_port=port)) if name == "metrics"]
    monkeypatch.setenv("ORTMESH_TELEMETRY_METRICS_HOST", "0.0.0.0")
    plan = _plan({"vision": 1, "nlp": 1}, metrics_port=9100)
    assert [value for name, value in addresses(plan) if name == "metrics"] == [
        "http://127.0.0.1:9100/metrics (vision)",
        "http://127.0.0.1:9101/metrics (nlp)",
        "http://127.0.0.1:9102/metrics (gateway)",
    ]


def test_the_hints_fit_what_is_served() -> None:
    plan = _plan({"vision": 1}, host="0.0.0.0")
    grpcurl, call, _ = commands(plan)
    assert "127.0.0.1:8080 ortmesh.models.v1.ModelService/ListModels" in grpcurl
    assert call == "ortmesh call vision classify photo.jpg"
