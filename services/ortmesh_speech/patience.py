"""Patience: a recording that was begun waits where the model's queue is full. Stage: task."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ortmesh.errors import Overloaded
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.types import Tensors

RETRY_SECONDS = 1.0


async def outputs_of(model: Model, pieces: Sequence[Tensors], call: Call, *, patient: bool) -> list[Tensors]:
    """The model's outputs. Patient, it waits where the queue is full: what was begun is not refused half-way."""
    while True:
        try:
            return await model.many(pieces, call)
        except Overloaded as error:
            if not patient:
                raise
            await asyncio.sleep(error.retry_after_seconds or RETRY_SECONDS)
            call.check()
