"""What a call does through `grpc.aio`'s context: one message in, messages out, a status at the end. Stage: front."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

import grpc
import grpc.aio

from ortmesh.errors import Cancelled, MalformedMessage, MessageTooLarge, ReaderStalled
from ortmesh.front.dispatch import Metadata
from ortmesh.front.limits import MAX_METADATA_BYTES
from ortmesh.front.status import Failure

log = logging.getLogger("ortmesh.front")

Context = grpc.aio.ServicerContext[bytes, bytes]

ENTRY_OVERHEAD = 32
"""What HTTP/2 counts for an entry beside its name and value."""
CODES = {code.value[0]: code for code in grpc.StatusCode}


def metadata(context: Context) -> Metadata:
    """The call's metadata. MessageTooLarge beyond the bound: gRPC's own holds only once the caller has acknowledged
    our settings; before that it takes 16 MiB."""
    entries = context.invocation_metadata() or ()
    nbytes = sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in entries)
    if nbytes > MAX_METADATA_BYTES:
        raise MessageTooLarge(f"the metadata has {nbytes} bytes; at most {MAX_METADATA_BYTES} are taken")
    return dict(entries)


async def message(context: Context) -> bytes:
    """The call's message; what may follow it is not read. MalformedMessage when there is none."""
    payload = await context.read()
    if isinstance(payload, bytes):
        return payload
    raise MalformedMessage("the call ended before its message was complete")


async def next_message(context: Context) -> bytes | None:
    """The next message of a stream; None once the caller has sent all of them. Cancelled when the call has ended.

    To whoever reads, `grpc.aio` tells of a caller that left as of one that has sent all, and cancels the call's task a
    moment later: 1 % of handlers took it for a half-close. By the time that a second read has come back from gRPC, the
    cancellation is here, too.
    """
    try:
        for _ in range(2):
            payload = await context.read()
            if isinstance(payload, bytes):
                return payload
    except grpc.aio.BaseError:  # the call has its status, or the server is closing
        raise Cancelled("the call has ended") from None
    return None


class Writer:
    """Sends a stream's messages one by one, each as long as its reader has patience for."""

    def __init__(self, context: Context, stall_seconds: float) -> None:
        self._context = context
        self._stall_seconds = stall_seconds
        self._last: asyncio.Task[bool] | None = None

    async def send(self, message: bytes) -> None:
        """Sends one message and waits for a slow reader. ReaderStalled when it takes nothing, Cancelled when it left.

        What is being written can't be taken back, only left: it goes on as a task of its own.
        """
        self._last = asyncio.create_task(self._write(message))
        done, _ = await asyncio.wait((self._last,), timeout=self._stall_seconds)
        if not done:
            raise ReaderStalled(f"no message was taken for {self._stall_seconds:g} s")
        if not self._last.result():
            raise Cancelled("the caller left")

    async def idle(self) -> None:
        """Returns once nothing is being written any more: gRPC takes no status before."""
        if self._last is not None:
            await asyncio.wait((self._last,))

    async def _write(self, message: bytes) -> bool:
        """False when nobody reads any more."""
        try:
            await self._context.write(message)
        except grpc.aio.BaseError:
            return False
        return True


async def send(context: Context, failure: Failure) -> NoReturn:
    """Ends a call with a status; quietly where its caller has left."""
    try:
        await context.abort(CODES[failure.code], failure.message, tuple(failure.trailers))
    except grpc.aio.InternalError:
        log.debug("nobody waits for the status %s any more", failure.name)
    # As gRPC itself ends a call whose caller left; whatever else is raised here it would log.
    raise asyncio.CancelledError
