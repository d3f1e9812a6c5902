"""Models that failed, in words: which, why, and what a person can do. Stage: command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ortmesh.cli.failures import settings
from ortmesh.cli.health import Models
from ortmesh.config import StoreSettings
from ortmesh.models.v1 import models_pb2


def waits_for(failed: Models) -> str:
    """Of models that failed and are tried again."""
    return "waits for what failed and is tried again: " + "; ".join(map(_why, failed))


def not_served(models: Models) -> list[str]:
    """A line for each model that failed, of a mesh that serves others."""
    failed = [model for model in models if model.state == models_pb2.MODEL_STATE_FAILED]
    return [f"{'not yet' if model.retrying else 'not'} served: {_why(model)}" for model in failed]


def nothing_to_serve(family: str, failed: Models, others: Sequence[str], store: Path | None) -> str:
    """Why a family's service can't become ready, and what to do; `others` are the families that it does not hold up."""
    if not failed:
        nothing = f"{family} has no models to serve: ORTMESH_SERVICE_ONLY names others, or they have been removed"
        return "\n".join([nothing, *_without(others, store)])
    lines = [f"{family} has nothing to serve, each of its models failed:", *(f"  {_why(model)}" for model in failed)]
    advice = [
        f"mend a model's card and files below {store}",
        *_again(failed, store),
        f"or remove what failed: ortmesh models remove {_key(failed[0])}{_there(store)}",
    ]
    return "\n".join([*lines, ", ".join(advice), *_without(others, store)])


def _there(store: Path | None) -> str:
    """The option that has a command look into the store, where it would not by itself."""
    return f" --models {store}" if store and store != settings(StoreSettings).models else ""


def _again(failed: Models, store: Path | None) -> list[str]:
    """How a model of the catalogue is fetched anew."""
    from ortmesh import catalogue

    known = {card.name for card in catalogue.cards()}
    names = [model.name for model in failed if model.name in known]
    return [f"fetch it anew: ortmesh pull --again {' '.join(names)}{_there(store)}"] if names else []


def _without(others: Sequence[str], store: Path | None) -> list[str]:
    families = ",".join(others)
    return [f"to serve the others meanwhile: ortmesh up --families {families}{_there(store)}"] if others else []


def _why(model: models_pb2.Model) -> str:
    return f"{_key(model)}: {model.state_reason}"


def _key(model: models_pb2.Model) -> str:
    return f"{model.name}@{model.version}"
