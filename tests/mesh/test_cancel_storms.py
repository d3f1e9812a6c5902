"""Storms of cancelled calls: they cost their own caller its connection and nobody else a call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import h2.connection
import h2.errors
import h2.events
import pytest

from ortmesh.client import Client
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from tests.mesh.bad import neighbours
from tests.mesh.conftest import RunningMesh
from tests.wire import USUAL, framed, open_socket

STORM_CALLS = 5_000
NEIGHBOURS = 8
PATH = "/ortmesh.nlp.v1.NlpService/Embed"
BODY = framed(EmbedRequest(texts=["nobody waits for this"]).SerializeToString())


class Leaver:
    """A caller whose every packet brings calls and cancels them."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._begin()

    def send(self, calls: int) -> int:
        """Sends one packet of calls, and how many there was room for; on a new connection where the other end has
        closed the last one."""
        begun = 0
        for begun in range(1, calls + 1):
            if self._http.outbound_flow_control_window < len(BODY):
                begun -= 1
                break  # what came makes room for more
            stream = self._http.get_next_available_stream_id()
            pseudo = ((":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "localhost"))
            self._http.send_headers(stream, [*pseudo, *USUAL])
            self._http.send_data(stream, BODY, end_stream=True)
            self._http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        try:
            self._socket.sendall(self._http.data_to_send())
            goes_on = self._listen()
        except (ConnectionResetError, BrokenPipeError):
            goes_on = False
        if not goes_on:
            self.close()
            self._begin()
        return begun

    def close(self) -> None:
        """Leaves for good."""
        self._socket.close()

    def _listen(self) -> bool:
        """Takes what came, which makes room for more; False when the other end says goodbye."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := self._socket.recv(65536):
                if any(isinstance(event, h2.events.ConnectionTerminated) for event in self._http.receive_data(data)):
                    break
            return False
        self._socket.setblocking(True)
        return True

    def _begin(self) -> None:
        self._socket = open_socket(self._address)
        self._http = h2.connection.H2Connection()
        self._http.initiate_connection()


@contextlib.contextmanager
def leavers(address: str, count: int) -> Iterator[list[Leaver]]:
    """So many callers on a connection each."""
    made = [Leaver(address) for _ in range(count)]
    try:
        yield made
    finally:
        for leaver in made:
            leaver.close()


@pytest.mark.parametrize(("connections", "calls"), [(1, 60), (100, 1)], ids=["60 in a packet", "100 at a time"])
def test_a_storm_of_cancelled_calls_fails_no_neighbours_call(mesh: RunningMesh, connections: int, calls: int) -> None:
    """All through the gateway. The storm comes in the same reads of the services' sockets, on which the native
    server's HTTP/2 gives a connection up."""
    sends = 0
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(mesh.address)) for _ in range(NEIGHBOURS)]
        good = [lambda to=to: to.nlp.Embed(EmbedRequest(texts=["good morning"]), timeout=30) for to in clients]
        stack.enter_context(neighbours(*good))
        storm = stack.enter_context(leavers(mesh.address, connections))
        while sends < STORM_CALLS:
            sends += sum(leaver.send(calls) for leaver in storm)
