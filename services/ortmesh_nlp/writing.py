"""Writing: one text of an answer, from tokens to pieces that may be shown; Inbox, where its reader finds them.
Stage: task.

The engine's thread tells tokens, the reader is a coroutine: the tokens that all texts got in a step come to the loop in
one wake-up, and what has come meanwhile is taken at once, so that a slow reader gets longer pieces and holds nobody up.
"""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.answers import Outbox
from ortmesh.serving.executor.engine.ask import CACHED, LOGPROB, REASON, TOKEN, TOP, TOP_LOGPROBS, Reason
from ortmesh.serving.types import Tensors
from ortmesh_nlp.chat import Language
from ortmesh_nlp.stops import Stops

MOST_TOKENS = 1024
"""Of a text that are shown in one piece: with 20 likeliest ones beside each it has half a megabyte, where callers of
gRPC take four."""


@dataclass(slots=True)
class Piece:
    """What has come of one text since its reader looked last."""

    text: str = ""
    logprobs: list[nlp_pb2.PlaceLogprobs] = field(default_factory=list)
    reason: Reason | None = None


class Inbox:
    """Wakes one reader when something has come. Belongs to the loop."""

    def __init__(self) -> None:
        self._come = asyncio.Event()

    def put(self) -> None:
        """Something has come."""
        self._come.set()

    async def wait(self) -> None:
        """Returns when something has come since the last time."""
        await self._come.wait()
        self._come.clear()


class Writing:
    """The answer of one text's item, and its owner. `enough` and the answer belong to the engine's thread."""

    def __init__(
        self, call: Call, outbox: Outbox, inbox: Inbox, language: Language, stops: Sequence[str], *, top: int
    ) -> None:
        """Its item must wake `outbox`."""
        self._call = call
        self._outbox = outbox
        self._inbox = inbox
        self._language = language
        self._top = top
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = Stops(stops)
        self._open = Piece()
        self._pieces: deque[Piece] = deque()
        self.tokens = 0
        """How many were generated."""
        self.cached = 0
        """How many of its prompt's tokens were not computed for it."""
        self.reason: Reason | None = None
        """Why it has ended."""
        self.error: BaseException | None = None
        self.left = False
        """True once nobody reads it."""

    # The owner

    @property
    def admitted(self) -> bool:
        """As its call: no later text of it is refused."""
        return self._call.admitted

    @admitted.setter
    def admitted(self, value: bool) -> None:
        self._call.admitted = value

    @property
    def cancelled(self) -> bool:
        """True once nobody waits for it."""
        return self.left or self._call.cancelled

    # The engine's thread

    def enough(self, token: int) -> bool:
        """Takes the next token's text; True when a stop has come."""
        self.tokens += 1
        self._open.text += self._stops.push(self._decoder.decode(self._language.bytes_of(token)))
        return self._stops.reached

    def emit(self, outputs: Tensors) -> None:
        """Takes what else is known of the token."""
        if self._top:
            self._open.logprobs.append(self._place(outputs))
        self._hand_over()

    def finish(self, outputs: Tensors) -> None:
        """The text has ended."""
        self.cached = int(outputs[CACHED][0])
        self._open.text += self._stops.rest()
        self._open.reason = self.reason = Reason(int(outputs[REASON][0]))
        self._hand_over()

    def fail(self, error: BaseException) -> None:
        """No more comes, and why."""
        self.error = error
        self._outbox.put(self)

    def _hand_over(self) -> None:
        """To a deque, which threads share without a lock: the reader gets what nobody writes to any more."""
        come, self._open = self._open, Piece()
        self._pieces.append(come)
        self._outbox.leave(self)

    # The reader

    def deliver(self) -> None:
        """Wakes it."""
        self._inbox.put()

    @property
    def more(self) -> bool:
        """True while something has come that was not taken."""
        return bool(self._pieces)

    def take(self) -> Piece:
        """What has come since, of many tokens the first; an empty one when nothing has. The reader is woken again for
        the rest."""
        whole = Piece()
        for _ in range(MOST_TOKENS):
            if not self._pieces:
                return whole
            piece = self._pieces.popleft()
            whole.text += piece.text
            whole.logprobs += piece.logprobs
            whole.reason = piece.reason
        self._inbox.put()
        return whole

    def _place(self, outputs: Tensors) -> nlp_pb2.PlaceLogprobs:
        chosen = self._logprob(int(outputs[TOKEN][0]), float(outputs[LOGPROB][0]))
        top = zip(outputs[TOP][0].tolist(), outputs[TOP_LOGPROBS][0].tolist(), strict=True)
        return nlp_pb2.PlaceLogprobs(chosen=chosen, top=[self._logprob(*each) for each in top])

    def _logprob(self, token: int, logprob: float) -> nlp_pb2.TokenLogprob:
        return nlp_pb2.TokenLogprob(token=token, bytes=self._language.bytes_of(token), logprob=logprob)


def cached_of(writings: Sequence[Writing]) -> int:
    """How many tokens of a prompt were not computed for this call. Its texts get what one of them read by copy, and so
    the one that got least counts: what it got was kept of earlier calls, or read for another that began alike."""
    return min(each.cached for each in writings)
