"""What the tests of bad requests share: how they are refused, who must not notice, what memory they may take.

A bad request costs its sender a quick, precise answer and nobody else anything. The aim is a second; the bound here
only tells an answer from the end of a deadline, since the processes of a whole mesh may share two cores with the
tests.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from ortmesh.client import Client, violations
from tests.mesh.conftest import Door, RunningMesh

ANSWER_SECONDS = 50.0
"""Less than the 60 s after which any call ends."""
MEGABYTE = 1_000_000
MAX_GROWTH_BYTES = 300 * MEGABYTE
"""Over a service at rest: far above a batch of good requests, far below what any bomb decodes to."""

PAUSE_SECONDS = 0.05
"""Between a neighbour's calls: it is a witness, no load."""

Send = Callable[[], object]
"""Sends one request and returns its answer."""


def expect_refusal(
    send: Send, code: grpc.StatusCode, field: str | None = None, *, seconds: float = ANSWER_SECONDS
) -> grpc.RpcError:
    """The error of a request that must be refused, in time, with this code and naming this field.

    `field` may be None where the code has no field (NOT_FOUND, RESOURCE_EXHAUSTED).
    """
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as refused:
        send()
    taken, error = time.monotonic() - start, refused.value
    told = f"{error.code().name}: {error.details()} {violations(error)}"
    assert error.code() is code, told
    assert field is None or [name for name, _ in violations(error)] == [field], told
    assert all(description for _, description in violations(error)), told
    assert taken < seconds, f"{taken:.1f} s: {told}"
    return error


@contextmanager
def neighbours(*sends: Send) -> Iterator[None]:
    """Other callers, a thread each, that send good requests for as long as the block runs.

    None of their calls may fail, and each must be answered while the block runs or shortly after.
    """
    stop = threading.Event()
    failures: list[BaseException] = []
    answered = [threading.Event() for _ in sends]

    def call_on(send: Send, done: threading.Event) -> None:
        try:
            while not done.is_set() or not stop.wait(PAUSE_SECONDS):
                send()
                done.set()
        except BaseException as error:  # raised again below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=call_on, args=each) for each in zip(sends, answered, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


@contextmanager
def bounded_memory(pids: Sequence[int], growth_bytes: int = MAX_GROWTH_BYTES) -> Iterator[None]:
    """Asserts that no process's memory ever stood more than so much over its present one while the block ran."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins again at what is resident now
    resting = [peak_bytes(pid) for pid in pids]
    yield
    grown = [peak_bytes(pid) - rest for pid, rest in zip(pids, resting, strict=True)]
    assert max(grown) < growth_bytes, f"grew by {[each // MEGABYTE for each in grown]} MB"


def peak_bytes(pid: int) -> int:
    """The most memory that a process had resident since its peak was last cleared (VmHWM)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def replicas(door: Door, family: str) -> list[int]:
    """The processes that may answer a family's requests through this door."""
    if door.through_gateway:
        return door.mesh.pids(f"listen unix:{door.mesh.runtime}/{family}")
    return door.mesh.pids(f"listen {door.address(family)}")


@contextmanager
def unharmed(
    mesh: RunningMesh, family: str, good: Callable[[Client], object], growth_bytes: int = MAX_GROWTH_BYTES
) -> Iterator[None]:
    """While the block runs, good requests are answered at both doors, and no replica grows beyond measure."""
    doors = [Door(mesh, through_gateway=True), Door(mesh, through_gateway=False)]
    with Client(doors[0].address(family)) as gateway, Client(doors[1].address(family)) as direct:
        for client in (gateway, direct) * 2:
            good(client)  # what is allocated once is not theirs
        witnesses = neighbours(lambda: good(gateway), lambda: good(direct))
        with bounded_memory(replicas(doors[0], family), growth_bytes), witnesses:
            yield


def until_served(mesh: RunningMesh, family: str, good: Callable[[Client], object]) -> None:
    """Returns once a good request to what was just added is answered by every replica and through the gateway."""
    sockets = [f"unix:{path}" for path in sorted(mesh.runtime.glob(f"{family}*.sock"))]
    for address in (*sockets, mesh.address):
        with Client(address) as to:
            mesh.until(lambda to=to: _is_answered(to, good))  # type: ignore[misc]


def _is_answered(to: Client, good: Callable[[Client], object]) -> bool:
    try:
        good(to)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
            return False
        raise
    return True


@contextmanager
def client(door: Door, family: str) -> Iterator[Client]:
    """A client at a door of a family."""
    with Client(door.address(family)) as made:
        yield made


def send(to: Client, method: str, request: bytes) -> bytes:
    """The answer's bytes to a request's, which need not be a message; `method` is `package.Service/Method`."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = to.channel.unary_unary(f"/{method}")
    return call(request, timeout=60)


def errors_of(results: Sequence[Any]) -> dict[int, tuple[int, list[str]]]:
    """The code and the fields of each result of a batch that is an error."""
    return {
        index: (result.error.code, fields_of(result.error))
        for index, result in enumerate(results)
        if result.WhichOneof("outcome") == "error"
    }


def fields_of(status: status_pb2.Status) -> list[str]:
    """The fields that a status's BadRequest names."""
    details = error_details_pb2.BadRequest()
    unpacked = [detail for detail in status.details if detail.Unpack(details)]
    return [violation.field for violation in details.field_violations] if unpacked else []
