"""NativeExchange: one call of the native server, answered from any thread. Stage: front."""

from __future__ import annotations

import logging

from pygrpc_native import NativeGrpcFront

from ortmesh.errors import Expired, OrtmeshError
from ortmesh.front.call import Call
from ortmesh.front.exchange import Exchange, Route
from ortmesh.front.status import Failure

log = logging.getLogger("ortmesh.front")


class NativeExchange(Exchange):
    """An admitted call, and the reply of its direct handler. Whoever answers first ends it."""

    __slots__ = ("_front", "_live", "number", "on_loop")

    def __init__(
        self,
        route: Route,
        call: Call,
        nbytes: int,
        number: int,
        front: NativeGrpcFront,
        live: dict[int, NativeExchange],
    ) -> None:
        super().__init__(route, call, nbytes)
        self.number = number
        self.on_loop = False
        """True once it is a coroutine's call."""
        self._front = front
        self._live = live
        live[number] = self

    def finish(self, payload: bytes) -> None:
        """Answers with a serialized message."""
        if not self._claimed():
            return
        if self._front.respond(self.number, payload):
            self.end("OK", len(payload))
        else:
            self.end_unheard()

    def finish_stream(self, sent_bytes: int) -> None:
        """Ends a stream after its last message."""
        if self._claimed():
            self._front.stream_end(self.number)
            self.end("OK", sent_bytes)

    def fail(self, error: BaseException) -> None:
        """Answers with a status."""
        if not isinstance(error, OrtmeshError):
            log.error("%s failed", self.call.method, exc_info=error, extra={"span": self.call.span})
        self.fail_with(Failure.of(error))

    def fail_with(self, failure: Failure) -> None:
        """Answers with a status that is already made."""
        if not self._claimed():
            return
        if self._front.fail(self.number, failure.code, failure.message, failure.trailers):
            self.end(failure.name)
        else:
            self.end_unheard()

    def give_up(self) -> None:
        """Ends the call without an answer: its caller left."""
        if self._claimed():
            self.end_unheard()

    def expire(self) -> None:
        """Tells the caller that the deadline passed. The permit stays with the work until that ends, too."""
        self.call.cancel()
        failure = Failure.of(Expired("the deadline passed"))
        self._front.fail(self.number, failure.code, failure.message, failure.trailers)

    def _claimed(self) -> bool:
        # Taking a key out of a dict is atomic: whoever gets it ends the call, all others come too late.
        return self._live.pop(self.number, None) is not None
