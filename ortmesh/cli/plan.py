"""Plan: which processes make a mesh on this machine, and how each is started. Stage: command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ortmesh.cli.supervisor import Part
from ortmesh.config import GATEWAY_ROUTES, GATEWAY_SOCKETS, Family, check_address

FAMILIES: tuple[str, ...] = get_args(Family)
SERVICES = {
    "vision": "ortmesh.vision.v1.VisionService",
    "speech": "ortmesh.speech.v1.SpeechService",
    "nlp": "ortmesh.nlp.v1.NlpService",
}
MAX_REPLICAS = 64
MAX_PORT = 65_535

Task = tuple[str, str]
"""A family and a task of it, e.g. `("nlp", "embed")`; the task is empty for models that only tensors reach."""


class BadPlan(Exception):
    """What was asked for can't be started; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ServicePart:
    """One replica of a family's service."""

    family: str
    address: str
    part: Part


@dataclass(frozen=True, slots=True)
class Plan:
    """The processes of a mesh; the front ones start last and end first."""

    address: str
    services: tuple[ServicePart, ...]
    gateway: Part
    """Answers for the models and routes to them."""
    proxy: Part
    """Keeps Envoy, which callers connect to."""
    families: tuple[str, ...]
    """The families that are served, each once."""
    leftovers: tuple[Path, ...]
    """What an earlier mesh in the same folder may have left, and this one must not find: its routes."""
    store: Path | None = None
    """Where the services' models lie; None where the services are not of this plan."""
    tasks: frozenset[Task] = frozenset()
    """What the installed models are for."""

    @property
    def names(self) -> list[str]:
        """The parts' names in the order of their start."""
        return [*(service.part.name for service in self.services), self.gateway.name, self.proxy.name]


def make_plan(
    replicas: Mapping[str, int],
    tasks: Iterable[Task],
    *,
    host: str,
    port: int,
    folder: Path,
    store: Path,
    metrics_port: int | None,
) -> Plan:
    """The processes for so many replicas a family.

    BadPlan when a socket's path gets too long, or a port of the metrics too high.
    """
    if metrics_port and metrics_port + sum(replicas.values()) > MAX_PORT:  # the gateway's is the last
        raise BadPlan(f"--metrics-port {metrics_port}: there are no {sum(replicas.values()) + 1} ports from there on")
    services = tuple(_services(replicas, folder, store, metrics_port))
    address = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
    backends = tuple(f"{each.family}={each.address}" for each in services)
    gateway, proxy = _front(address, backends, folder / "gateway", _environment(metrics_port, len(services)))
    wanted = frozenset(task for task in tasks if task[0] in replicas)
    leftovers = (folder / "gateway" / GATEWAY_ROUTES,)
    return Plan(address, services, gateway, proxy, tuple(replicas), leftovers, store, wanted)


def make_gateway_plan(
    address: str, backends: Sequence[str], *, folder: Path, metrics_port: int | None, options: Sequence[str] = ()
) -> Plan:
    """The processes of a gateway before services that run elsewhere; `options` are Envoy's keeper's."""
    families = tuple(dict.fromkeys(each.partition("=")[0] for each in backends))
    environment = _environment(metrics_port, 0)
    gateway, proxy = _front(address, backends, folder, environment, options)
    return Plan(address, (), gateway, proxy, families, (folder / GATEWAY_ROUTES,))


def _front(
    address: str, backends: Sequence[str], folder: Path, environment: Mapping[str, str], options: Sequence[str] = ()
) -> tuple[Part, Part]:
    """The gateway and Envoy's keeper, which have their folder in common."""
    for name in GATEWAY_SOCKETS:
        _socket(folder / name)
    words = [word for each in backends for word in ("--backend", each)]
    shared = {**environment, "ORTMESH_GATEWAY_RUNTIME": str(folder)}
    return (
        Part("gateway", module("ortmesh_gateway", *words), shared),
        Part("proxy", module("ortmesh_gateway.proxy", "--listen", address, *words, *options), shared),
    )


def _services(
    replicas: Mapping[str, int], folder: Path, store: Path, metrics_port: int | None
) -> Iterable[ServicePart]:
    names = [
        (family, family if count == 1 else f"{family}-{index}")
        for family, count in replicas.items()
        for index in range(count)
    ]
    for number, (family, name) in enumerate(names):
        address = _socket(folder / f"{name}.sock")
        command = module(f"ortmesh_{family}", "--listen", address, "--models", str(store))
        yield ServicePart(family, address, Part(name, command, _environment(metrics_port, number)))


def _socket(path: Path) -> str:
    try:
        return check_address(f"unix:{path}")
    except ValueError as error:
        raise BadPlan(f"{error}: choose a shorter folder with --runtime") from None


def _environment(metrics_port: int | None, number: int) -> dict[str, str]:
    """Logs for a person, and a port of its own for each part's metrics."""
    port = "" if metrics_port is None else str(metrics_port and metrics_port + number)
    return {"ORTMESH_TELEMETRY_LOG_FORMAT": "text", "ORTMESH_TELEMETRY_METRICS_PORT": port, "PYTHONUNBUFFERED": "1"}


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of one of ours; `-P`: what lies in the current folder is not imported."""
    return (sys.executable, "-P", "-m", name, *arguments)


def read_replicas(families: Iterable[str], asked: Iterable[str]) -> dict[str, int]:
    """Replicas by family from `vision=2` and the like; 1 where nothing is said. BadPlan names what is wrong."""
    counts = dict.fromkeys(families, 1)
    for text in asked:
        family, _, number = text.partition("=")
        if family not in counts:
            raise BadPlan(f"--replicas {text}: {family!r} is not among the families {', '.join(counts)}")
        if not number.isdecimal() or not 1 <= int(number) <= MAX_REPLICAS:
            raise BadPlan(f"--replicas {text}: expected FAMILY=NUMBER with 1 to {MAX_REPLICAS}")
        counts[family] = int(number)
    return counts


def read_families(asked: Iterable[str], installed: Iterable[str], store: Path) -> list[str]:
    """The families to serve: those that were asked for, else all that have a model in the store.

    BadPlan for a name that is no family, and for a family without models: it would never be ready.
    """
    there = set(installed)
    names = [name.strip() for text in asked for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FAMILIES:
            raise BadPlan(f"--families {name}: the families are {', '.join(FAMILIES)}")
    wanted = [family for family in FAMILIES if family in (names or there)]
    empty = [family for family in wanted if family not in there]
    if not wanted or empty:
        raise BadPlan(f"there are no models for {', '.join(empty) or 'any family'} in {store}: run `ortmesh pull`")
    return wanted
