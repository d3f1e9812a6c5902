"""Mesh: the models of all replicas as one, merged from what each last reported. Stage: gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ortmesh.errors import NotFound
from ortmesh.models.v1 import models_pb2
from ortmesh.near import near_in_words
from ortmesh_gateway.addresses import Address

Model = models_pb2.Model

UNREACHABLE = "its service cannot be reached"
UNROUTED = "its route is not live yet"
NOT_EVERYWHERE = "a replica of its service does not know it yet"
MAX_NAME, MAX_VERSION = 128, 64
"""The longest that a card may have. A caller's may be megabytes: no more of it is compared or told."""
RANKS = {
    models_pb2.MODEL_STATE_READY: 3,
    models_pb2.MODEL_STATE_LOADING: 2,
    models_pb2.MODEL_STATE_UNLOADING: 1,
    models_pb2.MODEL_STATE_FAILED: 0,
}
"""Of the replicas' states the highest counts: a model is ready where one replica has it ready."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of a family's service."""

    family: str
    address: Address

    def __str__(self) -> str:
        return f"{self.family} at {self.address}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica last said of its models. One that is lost keeps them, so that their names stay known."""

    models: tuple[Model, ...] = ()
    reachable: bool = False

    def current(self) -> Iterable[Model]:
        """The models as they stand now."""
        if self.reachable:
            yield from self.models
            return
        for model in self.models:
            lost = Model()
            lost.CopyFrom(model)
            lost.state = models_pb2.MODEL_STATE_FAILED
            lost.state_reason, lost.retrying = UNREACHABLE, True
            yield lost


class Mesh:
    """The reports of all replicas, and whoever wants to hear of changes. Lives on one event loop."""

    def __init__(self, replicas: Iterable[Replica]) -> None:
        self._reports = {replica: Report() for replica in replicas}
        self._watchers: list[Callable[[], None]] = []
        self.families = tuple(sorted({replica.family for replica in self._reports}))
        self.models: tuple[Model, ...] = ()
        """One entry a name and version, ordered by both."""
        self._routed: frozenset[str] = frozenset()

    def report(self, replica: Replica, models: Iterable[Model]) -> None:
        """A replica told of its models."""
        self._replace(replica, Report(tuple(models), reachable=True))

    def has_told(self, family: str) -> bool:
        """True once a replica of the family has told of its models."""
        return any(
            report.reachable or report.models for replica, report in self._reports.items() if replica.family == family
        )

    def routed(self, names: Iterable[str]) -> None:
        """The models whose routes are live: only they are ready for callers, whatever the services say."""
        if self._routed != frozenset(names):
            self._routed = frozenset(names)
            self._tell()

    def lose(self, replica: Replica) -> None:
        """A replica can't be reached."""
        self._replace(replica, replace(self._reports[replica], reachable=False))

    def join(self, replica: Replica) -> None:
        """A replica came to be: a name means one address more."""
        self._reports.setdefault(replica, Report())
        self._tell()

    def leave(self, replica: Replica) -> None:
        """A replica is no more, and what it told is forgotten."""
        if self._reports.pop(replica, None) is not None:
            self._tell()

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Has `callback` called after every change; returns what ends that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def find(self, name: str, version: str = "") -> Model:
        """A model; without a version the default one. NotFound names near ones."""
        versions = [model for model in self.models if model.name == name]
        if not versions:
            name = name[:MAX_NAME]
            told = near_in_words(name, self.names())
            raise NotFound(f"the mesh has no model {name!r}; {told}", resource=("model", name))
        if not version:
            return max(versions, key=lambda model: (model.default_version, RANKS.get(model.state, 0)))
        for model in versions:
            if model.version == version:
                return model
        version = version[:MAX_VERSION]
        served = ", ".join(model.version for model in versions)
        raise NotFound(f"{name} has no version {version!r}; it has {served}", resource=("model", f"{name}@{version}"))

    def names(self) -> list[str]:
        """Each model's name once."""
        return sorted({model.name for model in self.models})

    def clusters(self) -> dict[str, str]:
        """Where each model's calls go. A name that two families claim goes to the one that has it ready."""
        claims = [
            (RANKS.get(model.state, 0), replica.family, model.name)
            for replica, report in self._reports.items()
            for model in report.current()
        ]
        return {name: family for _, family, name in sorted(claims, key=lambda claim: claim[0])}

    def ready(self, family: str) -> bool:
        """True when callers find a model of the family ready."""
        return any(
            self._as_callers_find_it(model).state == models_pb2.MODEL_STATE_READY
            for replica, report in self._reports.items()
            if replica.family == family
            for model in report.current()
        )

    def _replace(self, replica: Replica, report: Report) -> None:
        if self._reports.get(replica) in (None, report):  # gone, or nothing new
            return
        self._reports[replica] = report
        self._tell()

    def _tell(self) -> None:
        self.models = tuple(map(self._as_callers_find_it, merge(self._reports)))
        for callback in list(self._watchers):
            callback()

    def _as_callers_find_it(self, model: Model) -> Model:
        """A ready model whose call could still meet NOT_FOUND or no route is shown as loading.

        A replica that loads it is no reason: it answers UNAVAILABLE, and the call goes to another one.
        """
        if model.state != models_pb2.MODEL_STATE_READY:
            return model
        if model.name not in self._routed:
            return _loading(model, UNROUTED)
        return model if self._known_everywhere(model) else _loading(model, NOT_EVERYWHERE)

    def _known_everywhere(self, model: Model) -> bool:
        reached = [
            report for replica, report in self._reports.items() if replica.family == model.family and report.reachable
        ]
        key = (model.name, model.version)
        return all(any((each.name, each.version) == key for each in report.models) for report in reached)


def _loading(model: Model, reason: str) -> Model:
    waiting = Model()
    waiting.CopyFrom(model)
    waiting.state, waiting.state_reason = models_pb2.MODEL_STATE_LOADING, reason
    return waiting


def merge(reports: Mapping[Replica, Report]) -> tuple[Model, ...]:
    """One entry a name and version: the one whose state ranks highest, the first replica's among equals."""
    best: dict[tuple[str, str], Model] = {}
    for report in reports.values():
        for model in report.current():
            key = (model.name, model.version)
            if key not in best or RANKS.get(model.state, 0) > RANKS.get(best[key].state, 0):
                best[key] = model
    return tuple(best[key] for key in sorted(best))
