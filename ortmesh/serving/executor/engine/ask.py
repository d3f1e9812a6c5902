"""Ask: what one text wants of the engine, and TextItem, the piece of work that carries it. Stage: task to executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np

from ortmesh.serving.executor.engine.sampler import Sampling
from ortmesh.serving.executor.engine.slots import Ids
from ortmesh.serving.types import Answer, Array, Item, Owner

PROMPT, TOKEN, LOGPROB, TOP, TOP_LOGPROBS = "prompt", "token", "logprob", "top", "top_logprobs"
REASON, CACHED = "reason", "cached"


class Reason(IntEnum):
    """Why a text ended."""

    STOP = 0
    """The model ended it, or `enough` did."""
    LENGTH = 1
    """It has as many tokens as it may have."""


class Grammar(Protocol):
    """What may come next in a text that must have a form."""

    def allowed(self) -> Array | None:
        """Bits of the tokens that may come next, uint32 [(vocabulary + 31) // 32], lowest first; None for all."""

    def accept(self, token: int) -> bool:
        """A token has come; True when the text is whole and nothing may follow but its end."""


def _never(token: int) -> bool:
    return False


def _nobody() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Ask:
    """One text."""

    prompt: Ids
    """[n], at least one token, and with `max_tokens` no more than a text may have."""
    max_tokens: int
    stop_tokens: frozenset[int]
    """Tokens that end it, and are not part of it."""
    sampling: Sampling
    top: int = 0
    """So many likeliest tokens are told of each place."""
    grammar: Grammar | None = None
    enough: Callable[[int], bool] = _never
    """Told each token in the engine's thread; True ends the text after it. Must be quick, and must not raise."""


class TextItem(Item):
    """An item that asks for a text.

    `wake` is called after each step in which it is in progress, when all texts have what the step gave, and once for
    all that have the same: what it costs to bring tokens to another thread is paid once a step. An answer that fails
    must not wait for it.

    Its answer gets a piece a token: `token` int64 [1] and, where likeliest ones were asked for, `logprob` float32 [1],
    `top` int64 [1, n] and `top_logprobs` float32 [1, n], the likeliest first. It finishes with `reason` int64 [1] (a
    `Reason`) and `cached` int64 [1], how many tokens of the prompt were not computed for it.
    """

    __slots__ = ("ask", "wake")

    def __init__(
        self,
        ask: Ask,
        *,
        answer: Answer,
        owner: Owner,
        deadline: float,
        priority: int = 0,
        caller: str = "",
        wake: Callable[[], None] = _nobody,
    ) -> None:
        prompt = np.asarray(ask.prompt, np.int64)[None]
        super().__init__(
            {PROMPT: prompt},
            answer=answer,
            owner=owner,
            deadline=deadline,
            size=prompt.shape[1] + ask.max_tokens,
            priority=priority,
            caller=caller,
        )
        self.ask = ask
        self.wake = wake
