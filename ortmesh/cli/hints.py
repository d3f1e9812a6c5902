"""What `ortmesh up` says once the mesh is ready: where everything is, and what to try. Stage: command line."""

from __future__ import annotations

from rich.text import Text

from ortmesh.cli.console import out
from ortmesh.cli.failures import settings
from ortmesh.cli.plan import Plan, Task
from ortmesh.client import DEFAULT_ADDRESS
from ortmesh.config import TelemetrySettings

METRICS_PORT = TelemetrySettings.variables()["metrics_port"]
ANYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_CALLS: dict[Task, str] = {
    ("nlp", "embed"): 'call nlp embed "good morning" "good evening" "the train is late"',
    ("nlp", "detect_language"): 'call nlp detect-language "Guten Morgen" "good morning"',
    ("nlp", "find_entities"): 'call nlp find-entities "Please call Maria Gonzalez in Boston: +1 617-555-0142"',
    ("nlp", "generate"): 'call nlp generate "What is the capital of France?"',
    ("vision", "classify"): "call vision classify photo.jpg",
    ("vision", "detect"): "call vision detect group.jpg --save out.png",
    ("vision", "read_text"): "call vision read-text page.png --save out.png",
    ("speech", "recognize"): "call speech recognize talk.wav",
    ("speech", "detect_speech"): "call speech detect-speech talk.wav",
    ("speech", "embed_speaker"): "call speech embed-speaker known.wav caller.wav",
    ("speech", "identify_language"): "call speech identify-language talk.wav",
}


def print_hints(plan: Plan) -> None:
    """Prints the addresses and three commands that work with what is installed."""
    for name, value in addresses(plan):
        out.print(Text.assemble(f"  {name:8} ", (value, "cyan")), soft_wrap=True)
    out.print(Text("Try, from another terminal:", style="bold"))
    for command in commands(plan):
        out.print(Text(f"  {command}"), soft_wrap=True)


def addresses(plan: Plan) -> list[tuple[str, str]]:
    """What listens where."""
    services = [(service.part.name, service.address) for service in plan.services]
    store = [("models", str(plan.store))] if plan.store else []
    return [("mesh", f"{plan.address} (gRPC)"), *services, *store, *_metrics(plan)]


def _metrics(plan: Plan) -> list[tuple[str, str]]:
    """Each part's endpoint; none for port 0, of which the part's own log tells. Envoy's keeper has no endpoint."""
    host = settings(TelemetrySettings).metrics_host
    host = f"[{host}]" if ":" in host else host
    parts = [*(service.part for service in plan.services), plan.gateway]
    ports = [(part.name, part.environment.get(METRICS_PORT, "")) for part in parts]
    return [
        ("metrics", f"http://{reachable(f'{host}:{port}')}/metrics ({name})") for name, port in ports if int(port or 0)
    ]


def commands(plan: Plan) -> list[str]:
    """One with grpcurl, one with this command, one in Python."""
    address = reachable(plan.address)
    elsewhere = "" if address == DEFAULT_ADDRESS else f" --address {address}"
    call = next((call for task, call in _CALLS.items() if task in plan.tasks), "models list")
    body, method = "{}", "ortmesh.models.v1.ModelService/ListModels"
    if ("nlp", "embed") in plan.tasks:
        body, method = '{"texts": ["good morning"]}', "ortmesh.nlp.v1.NlpService/Embed"
    python = (
        "from ortmesh.client import Client; from ortmesh.models.v1.models_pb2 import ListModelsRequest; "
        f"print(Client('{address}').models.ListModels(ListModelsRequest()))"
    )
    return [
        f"grpcurl -plaintext -d '{body}' {address} {method}",
        f"ortmesh {call}{elsewhere}",
        f'python -c "{python}"',
    ]


def reachable(address: str) -> str:
    """An address that a caller on this machine can use: 0.0.0.0 is for listening only."""
    host, _, port = address.rpartition(":")
    return f"{ANYWHERE.get(host, host)}:{port}"
