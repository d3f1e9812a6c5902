"""Batching as the API shows it: how a model's items are put into batches, and what that is built on. Stage: task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ortmesh.models.v1 import models_pb2
from ortmesh.serving.warmup import Mode

if TYPE_CHECKING:
    from ortmesh.serving.model import Model

BY_COST = "by cost"
IN_ORDER = "in order of arrival"
ALONE = "one at a time"


def batching_of(model: Model) -> models_pb2.Batching:
    """What is known now; empty before the model is loaded."""
    if not model.executors:
        return models_pb2.Batching()
    report = models_pb2.Batching(policy=_policy_of(model), executors=model.executors, threads=model.threads)
    if (book := model.costs) is not None:
        report.speed = book.speed
        report.costs.extend(
            models_pb2.Cost(size=size, rows=rows, seconds=seconds, measured=book.was_measured(size, rows))
            for size, rows, seconds in book.table()
        )
        report.choices.extend(
            models_pb2.Choice(size=size, rows=rows, items_per_second=rate) for size, rows, rate in book.choices()
        )
    return report


def _policy_of(model: Model) -> str:
    if model.mode is Mode.ALONE:
        return ALONE
    return BY_COST if model.costs is not None and model.costs.costs is not None else IN_ORDER
