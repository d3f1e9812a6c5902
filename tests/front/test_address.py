"""Where a front listens, and which adapter it gets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ortmesh.front.address import choose_adapter, is_private
from tests.front.conftest import Serve


@pytest.mark.parametrize(
    ("target", "private"),
    [
        ("unix:/tmp/s", True),
        ("127.0.0.1:50051", True),
        ("127.9.9.9:0", True),
        ("localhost:0", True),
        ("[::1]:50051", True),
        ("0.0.0.0:50051", False),
        ("[::]:50051", False),
        ("10.0.0.1:50051", False),
        ("127.0.0.1.example.org:50051", False),
        ("localhost.example.org:50051", False),
    ],
)
def test_native_serves_only_where_no_stranger_connects(target: str, private: bool) -> None:
    assert is_private(target) is private
    assert choose_adapter("auto", target) == ("native" if private else "grpcio")


def test_the_operator_may_choose_the_adapter() -> None:
    assert choose_adapter("native", "0.0.0.0:1") == "native"
    assert choose_adapter("grpcio", "unix:/tmp/s") == "grpcio"


async def test_a_socket_that_nobody_listens_on_is_replaced(serve: Serve, sockets: Path) -> None:
    path = sockets / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    service = await serve(f"unix:{path}")
    assert await service.say("Say", "hello") == "hello"


async def test_a_socket_that_somebody_listens_on_is_not_stolen(serve: Serve, sockets: Path) -> None:
    first = await serve(f"unix:{sockets}/busy")
    with pytest.raises(OSError, match="another process listens"):
        await serve(f"unix:{sockets}/busy")
    assert await first.say("Say", "hello") == "hello"


async def test_a_file_that_is_no_socket_is_left_alone(serve: Serve, sockets: Path) -> None:
    (sockets / "precious").write_text("mine")
    with pytest.raises(FileExistsError, match="no socket"):
        await serve(f"unix:{sockets}/precious")
    assert (sockets / "precious").read_text() == "mine"


async def test_a_path_that_is_too_long_is_named(serve: Serve, sockets: Path) -> None:
    with pytest.raises(ValueError, match="107 bytes"):
        await serve(f"unix:{sockets}/{'x' * 100}")


async def test_a_port_in_use_is_an_error(serve: Serve) -> None:
    first = await serve("127.0.0.1:0")
    with pytest.raises(OSError, match=first.front.address):
        await serve(first.front.address)
    assert await first.say("Say", "hello") == "hello"


async def test_a_drained_service_leaves_no_socket_file(serve: Serve, sockets: Path) -> None:
    service = await serve(f"unix:{sockets}/gone")
    await service.drain()
    assert os.listdir(sockets) == []
