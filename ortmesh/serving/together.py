"""Together: the outputs of a call's items, brought to the loop once all are there, without a coroutine that waits.

Stage: batcher to task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ortmesh.front.call import Call
from ortmesh.front.methods import Reply
from ortmesh.serving.answers import Outbox
from ortmesh.serving.types import Tensors


class Together:
    """Answers a direct call when the last of its items is done, or the first has failed. From any thread."""

    def __init__(
        self,
        count: int,
        call: Call,
        reply: Reply,
        outbox: Outbox,
        encode: Callable[[Sequence[Tensors]], bytes],
        in_words: Callable[[BaseException], BaseException] = lambda error: error,
    ) -> None:
        """On the loop `encode` makes the serialized answer of the outputs of all `count` items, in their order, and
        `in_words` the caller's error of an item's."""
        self._call = call
        self._reply = reply
        self._outbox = outbox
        self._encode = encode
        self._in_words = in_words
        self._outputs: list[Tensors] = [{}] * count
        self._left = count
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def answers(self) -> list[OneOf]:
        """An answer for each item."""
        return [OneOf(self, place) for place in range(len(self._outputs))]

    def came(self, place: int, outputs: Tensors) -> None:
        """One is done."""
        self._outputs[place] = outputs
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._outbox.put(self)

    def failed(self, error: BaseException) -> None:
        """One has failed; further ones change nothing."""
        with self._lock:
            first = self._error is None
            if first:
                self._error = error
        if first:
            self._outbox.put(self)

    def deliver(self) -> None:
        """Answers, on the loop. A failure to encode is this caller's answer, and so is a deadline that has passed."""
        if self._error is not None:
            self._reply.fail(self._in_words(self._error))
            return
        try:
            self._call.check()
            payload = self._encode(self._outputs)
        except Exception as error:
            self._reply.fail(error)
        else:
            self._reply.finish(payload)


class OneOf:
    """The answer of one item of several."""

    __slots__ = ("_all", "_place")

    def __init__(self, every: Together, place: int) -> None:
        self._all = every
        self._place = place

    def emit(self, outputs: Tensors) -> None:
        """A call of one answer takes no pieces: programs that emit are called through streams."""
        raise TypeError("this model answers in pieces")

    def finish(self, outputs: Tensors) -> None:
        """Its outputs."""
        self._all.came(self._place, outputs)

    def fail(self, error: BaseException) -> None:
        """Why it has none."""
        self._all.failed(error)
