"""Text: one text in progress, in its slot. Stage: executor."""

from __future__ import annotations

import logging
import time

import numpy as np

from ortmesh.errors import OrtmeshError
from ortmesh.serving.executor.engine.ask import CACHED, LOGPROB, REASON, TOKEN, TOP, TOP_LOGPROBS, Reason, TextItem
from ortmesh.serving.executor.engine.sampler import Sampler
from ortmesh.serving.executor.engine.slots import Held, Ids, Values
from ortmesh.serving.executor.failures import failure_of
from ortmesh.serving.types import Array

log = logging.getLogger(__name__)


class Text:
    """What is there of it, and what comes next. Belongs to the engine's thread."""

    def __init__(self, item: TextItem, held: Held, cached: int, least_read: int) -> None:
        self.item = item
        self._least_read = least_read
        self.cached = cached
        """How many tokens of its prompt were not computed for it."""
        self._ask = item.ask
        self._tokens: list[int] = item.ask.prompt.tolist()
        """The prompt and what was generated."""
        self._held = held
        self._sampler = Sampler(item.ask.sampling, item.ask.prompt)
        self.reason: Reason | None = None
        """Why it has ended."""
        self.failed = False
        """True when something went wrong with it."""
        self.told = False
        """True once metrics have been told that it has ended."""
        self._first = 0.0
        """When its first token came."""
        self._last = 0.0
        """When its last one did: an end that is no token is not waited for."""

    @property
    def prompt(self) -> Ids:
        """[n]."""
        return self._ask.prompt

    @property
    def to_read(self) -> int:
        """How many tokens of its prompt are to be computed in chunks: those before its last one, if there are enough
        for a chunk."""
        left = len(self._ask.prompt) - 1 - len(self._held.tokens)
        return left if left >= self._least_read else 0

    @property
    def length(self) -> int:
        """How many of its tokens have been computed."""
        return len(self._held.tokens)

    @property
    def generated(self) -> int:
        """How many tokens it has beyond its prompt."""
        return len(self._tokens) - len(self._ask.prompt)

    @property
    def first_seconds(self) -> float:
        """How long after it was asked for its first token came."""
        return self._first - self.item.arrival

    @property
    def token_seconds(self) -> float | None:
        """How long its later tokens took, each; None where it has none, or does not end well."""
        if self.reason is None or self.generated < 2:
            return None
        return (self._last - self._first) / (self.generated - 1)

    @property
    def outcome(self) -> str:
        """Why it has ended, as metrics name it."""
        if self.reason is not None:
            return self.reason.name.lower()
        if self.failed:
            return "error"
        return "expired" if self.item.late else "cancelled"

    def following(self, count: int) -> list[int]:
        """Its next tokens to compute, at most so many."""
        return self._tokens[self.length : self.length + count]

    def stepped(self) -> None:
        """One more is in its slot."""
        self._held.tokens.extend(self.following(1))

    def read(self, count: int) -> None:
        """So many more are in its slot, which were computed in a chunk."""
        self._held.read += count
        self._held.tokens.extend(self.following(count))

    def took(self, count: int) -> None:
        """So many more are in its slot, which were computed for another text."""
        self.cached += count
        self.read(count)

    def append(self, logits: Values) -> bool:
        """Chooses its next token by the logits [vocabulary] after its last computed one: none within its prompt. True
        when a token has come.

        What goes wrong in here is this text's alone.
        """
        before = self.generated
        if self.length < len(self._tokens):
            return False
        try:
            self._choose(logits)
        except OrtmeshError as error:
            self.fail(error)
        except Exception as error:
            log.error("a token could not be chosen", exc_info=error)
            self.fail(failure_of(error, on_device=False))
        return self.generated > before

    def fail(self, error: OrtmeshError) -> None:
        """Ends its item with what went wrong."""
        self.failed = True
        self.item.fail(error)

    def _choose(self, logits: Values) -> None:
        ask = self._ask
        allowed = ask.grammar.allowed() if ask.grammar is not None else None
        chosen = self._sampler.choose(logits, allowed, ask.top)
        if chosen.token in ask.stop_tokens:
            self.reason = Reason.STOP
            return
        self._tokens.append(chosen.token)
        self._last = time.monotonic()
        self._first = self._first or self._last
        piece: dict[str, Array] = {TOKEN: np.array([chosen.token], np.int64)}
        if ask.top:
            logprob = np.array([chosen.logprob], np.float32)
            piece |= {LOGPROB: logprob, TOP: chosen.top[None], TOP_LOGPROBS: chosen.top_logprobs[None]}
        enough = ask.enough(chosen.token)
        self.item.emit(piece)
        whole = ask.grammar is not None and ask.grammar.accept(chosen.token)
        if enough or whole:
            self.reason = Reason.STOP
        elif self.generated >= ask.max_tokens:
            self.reason = Reason.LENGTH

    def finish(self) -> None:
        """Ends its item."""
        assert self.reason is not None
        self.item.finish({REASON: np.array([self.reason], np.int64), CACHED: np.array([self.cached], np.int64)})
