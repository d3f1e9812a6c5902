"""What is known of models: by the running mesh, or by the store alone. Stage: command line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.text import Text

from ortmesh.cli.console import err, fail
from ortmesh.cli.failures import call_errors_in_words, errors_in_words, not_reached, settings
from ortmesh.cli.options import ADDRESS_VARIABLE
from ortmesh.cli.plan import SERVICES
from ortmesh.client import DEFAULT_ADDRESS, Client
from ortmesh.config import StoreSettings
from ortmesh.models.v1 import models_pb2
from ortmesh.near import near

if TYPE_CHECKING:
    from ortmesh.serving.cards import Card
    from ortmesh.serving.store import Store

TIMEOUT_SECONDS = 10.0
LOOK_SECONDS = 2.0
"""For what a command only adds to its answer."""


def from_mesh(address: str, family: str, task: str, *, must: bool) -> list[models_pb2.Model] | None:
    """All pages of the mesh's list; None, with a word about it, when no mesh answers and none `must`."""
    found: list[models_pb2.Model] = []
    token = ""
    with call_errors_in_words(address), Client(address, timeout_seconds=TIMEOUT_SECONDS) as mesh:
        while True:
            request = models_pb2.ListModelsRequest(family=family, task=task, page_token=token)
            try:
                page = mesh.models.ListModels(request)
            except grpc.RpcError as error:
                if not_reached(error) and not must:
                    _say_no_mesh(address)
                    return None
                raise
            found += page.models
            token = page.next_page_token
            if not token:
                return found


def one_from_mesh(address: str, name: str, *, must: bool) -> models_pb2.Model | None:
    """One model of the mesh's; None, with a word about it, when no mesh answers and none `must`."""
    with call_errors_in_words(address), Client(address, timeout_seconds=TIMEOUT_SECONDS) as mesh:
        try:
            return mesh.models.GetModel(models_pb2.GetModelRequest(model=name))
        except grpc.RpcError as error:
            if not_reached(error) and not must:
                _say_no_mesh(address)
                return None
            if error.code() is grpc.StatusCode.NOT_FOUND and not must:
                say_what_is_not_usable(name.partition("@")[0])
            raise


def say_what_is_not_served(families: Iterable[str]) -> None:
    """Which of the families that have new models this machine's mesh was started without. Nothing where none answers,
    and where ORTMESH_ADDRESS names another one: that serves another store."""
    if os.environ.get(ADDRESS_VARIABLE):
        return
    with grpc.insecure_channel(DEFAULT_ADDRESS) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for family in families:
            try:
                health.Check(health_pb2.HealthCheckRequest(service=SERVICES[family]), timeout=LOOK_SECONDS)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    return
                told = f"the running mesh was started without {family}: end it, and start `ortmesh up` again"
                err.print(told, style="yellow", soft_wrap=True)


def say_what_is_not_usable(name: str = "") -> None:
    """The models of the user's store whose cards can't be read, or that of the name: no service of a mesh knows them.
    Nothing where the store itself can't be read: a mesh that another user runs has another one."""
    store = open_store(None)
    with suppress(OSError):
        store.cards()
    say_problems(store, name)


def say_problems(store: Store, name: str = "") -> None:
    """What a store that was looked at could not use, or of the model of the name."""
    for folder, problem in store.problems.items():
        if not name or store.root / name in (folder, folder.parent):
            err.print(Text(f"not usable: {folder}: {problem}", style="yellow"), soft_wrap=True)


def _say_no_mesh(address: str) -> None:
    err.print(f"no mesh answers at {address}: this is what the store holds", style="yellow")


def open_store(folder: Path | None) -> Store:
    """The store in the folder, or the user's."""
    from ortmesh.serving.store import Store

    return Store(folder or settings(StoreSettings).models)


def from_store(store: Store) -> list[models_pb2.Model]:
    """The store's usable models as the mesh would tell of them; what is not usable is said."""
    from ortmesh.serving.choice import task_defaults

    with errors_in_words():
        cards = [card for card, _ in store.cards()]
    say_problems(store)
    models = [_as_model(card, store) for card in cards]
    defaults = {model.name: model for model in models if model.default_version}
    chosen = task_defaults((card, False) for card, model in zip(cards, models, strict=True) if model.default_version)
    for (_, task), name in chosen.items():
        defaults[name].default_for.append(task)
    return models


def one_from_store(store: Store, name: str) -> models_pb2.Model:
    """One model of the store; ends the command when there is none of the name."""
    wanted, _, version = name.partition("@")
    every = from_store(store)
    found = [model for model in every if model.name == wanted]
    for model in found:
        if model.version == version or (not version and model.default_version):
            return model
    close = near(wanted, {model.name for model in every})
    there = ", ".join(f"{model.name}@{model.version}" for model in every if not close or model.name in close)
    told = f"near names: {there}" if close and not found else f"it has {there or 'nothing'}"
    fail(f"the store {store.root} has no {name}; {told}")


def card_file(model: models_pb2.Model, store: Store) -> Path | None:
    """Where a model's card is, if the store has it and can be read."""
    from ortmesh.serving.cards import CARD_FILE

    path = store.folder(model.name, model.version) / CARD_FILE
    with suppress(OSError):
        return path if path.is_file() else None
    return None


def _as_model(card: Card, store: Store) -> models_pb2.Model:
    """A card as the mesh would tell of it, without what only a loaded model knows."""
    return models_pb2.Model(
        name=card.name,
        version=card.version,
        family=card.family,
        tasks=card.tasks,
        default_version=store.default_of(card.name) == card.version,
        max_batch_size=card.batching.max_rows,
        license=card.license.weights,
        attribution=card.license.attribution,
        description=card.description,
        card_json=card.model_dump_json(exclude_defaults=True),
    )
