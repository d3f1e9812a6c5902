"""What ModelService asks, the same for one service's models and for the mesh's: pages and names. Stage: front."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Protocol, TypeVar

from ortmesh.errors import BadInput
from ortmesh.models.v1 import models_pb2

PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


class Keyed(Protocol):
    """A version of a model."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """The version."""


M = TypeVar("M", bound=Keyed)


def page_of(models: Iterable[M], request: models_pb2.ListModelsRequest) -> tuple[list[M], str]:
    """(the page that is asked for, the token of the next one) of models that are ordered by name and version.

    A token holds the last model's key, so that models may come and go between pages. BadInput for a negative size
    and for a made-up token.
    """
    if request.page_size < 0:
        raise BadInput("page_size", f"{request.page_size}: expected 1 to {MAX_PAGE_SIZE}, or 0 for {PAGE_SIZE}")
    size = min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)
    last = _read_token(request.page_token)
    left = [model for model in models if (model.name, model.version) > last]
    return left[:size], _write_token(left[size - 1]) if len(left) > size else ""


def requested(request: models_pb2.GetModelRequest) -> tuple[str, str]:
    """The (name, version) that is asked for; the version is "" for the default one. BadInput without a name."""
    if not request.model:
        raise BadInput("model", "expected a model's name, or name@version")
    name, _, version = request.model.partition("@")
    return name, version


def _write_token(model: Keyed) -> str:
    return base64.urlsafe_b64encode(f"{model.name}@{model.version}".encode()).decode()


def _read_token(token: str) -> tuple[str, str]:
    """The (name, version) after which a page begins; empty ones for the first page."""
    if not token:
        return "", ""
    try:
        name, at, version = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition("@")
    except (binascii.Error, ValueError):
        name = at = version = ""
    if not at:
        raise BadInput("page_token", "expected the next_page_token of an earlier answer, or nothing")
    return name, version
