"""NativeStreams: what serves, behind the native server, the methods that take a stream from the caller. Stage: front.

NativeGrpcFront knows no such methods. Calls of paths that it does not serve it passes on over HTTP/2, as they come, to
a server on a Unix socket: our own grpcio adapter, with those methods alone. Both ways the messages, half-close,
deadline, cancellation, metadata and status arrive as they were sent [tests/front/test_requests.py].
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from pygrpc_native import NativeGrpcFront

from ortmesh.front.address import UNIX
from ortmesh.front.dispatch import Dispatcher
from ortmesh.front.limits import FrontLimits

if TYPE_CHECKING:
    from ortmesh.front.grpcio import GrpcioAdapter

SOCKET = "streams"


class NativeStreams:
    """A grpcio adapter on a socket in a folder of its own, which only this user opens; nothing where no method takes a
    stream."""

    def __init__(self, dispatcher: Dispatcher, limits: FrontLimits) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._folder = ""
        self._adapter: GrpcioAdapter | None = None

    async def start(self, front: NativeGrpcFront) -> None:
        """Serves, and tells the native server where. OSError when no socket can be had."""
        routes = [route for route in self._dispatcher.routes if route.method.takes_stream]
        if not routes:
            return
        from ortmesh.front.grpcio import GrpcioAdapter  # 3 MiB, which services without streams do not pay

        self._folder = tempfile.mkdtemp(prefix="ortmesh-")
        path = os.path.join(self._folder, SOCKET)
        self._adapter = GrpcioAdapter(f"{UNIX}{path}", self._dispatcher, self._limits, routes)
        await self._adapter.start()
        front.set_fallback(path)

    async def stop(self) -> None:
        """Ends what still runs."""
        if self._adapter is not None:
            await self._adapter.stop()
            shutil.rmtree(self._folder, ignore_errors=True)
