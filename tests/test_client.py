"""The client lives beside other people's packages, and never waits for ever."""

from __future__ import annotations

import subprocess
import sys
import time

import grpc
import pytest

from ortmesh.client import AsyncClient, Client, _default_timeout, check_target
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest

CLIENT = "import ortmesh.client"
TRITON = "import tritonclient.grpc, tritonclient.grpc.service_pb2"
SERVER = "import ortmesh.descriptors; ortmesh.descriptors.oip('ModelInferRequest')(model_name='x')"


@pytest.mark.parametrize("lines", [[CLIENT, TRITON], [TRITON, CLIENT], [SERVER, TRITON], [TRITON, SERVER]])
def test_client_server_and_tritonclient_share_a_process(lines: list[str]) -> None:
    """Two copies of `package inference` in one pool would end the process with a duplicate symbol."""
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_the_client_imports_neither_the_server_nor_numpy() -> None:
    """What a backend service must install is grpcio, protobuf and googleapis-common-protos."""
    heavy = "numpy onnxruntime pydantic ortmesh.descriptors ortmesh.front ortmesh.serving"
    code = f"import sys, ortmesh.client; assert not set('{heavy}'.split()) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_default_deadlines_are_the_methods_own() -> None:
    assert _default_timeout("/ortmesh.nlp.v1.NlpService/Embed") == 60
    assert _default_timeout("/ortmesh.speech.v1.SpeechService/Recognize") == 600
    assert _default_timeout("/ortmesh.speech.v1.SpeechService/Synthesize") == 43_200
    assert _default_timeout("/ortmesh.models.v1.ModelService/GetModel") == 10


def test_a_call_to_nobody_ends_with_a_status(unused_port: int) -> None:
    with Client(f"127.0.0.1:{unused_port}", timeout_seconds=0.5) as mesh, pytest.raises(grpc.RpcError) as failed:
        mesh.nlp.Embed(EmbedRequest(texts=["x"]))
    assert failed.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_a_server_that_never_answers_meets_the_clients_timeout(silent_port: int) -> None:
    started = time.monotonic()
    with Client(f"127.0.0.1:{silent_port}", timeout_seconds=0.5) as mesh, pytest.raises(grpc.RpcError) as failed:
        mesh.nlp.Embed(EmbedRequest(texts=["x"]))
    assert failed.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert time.monotonic() - started < 50


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1", "127.0.0.1:", ":8080", "127.0.0.1:99999", "127.0.0.1:0", "host:http", "::1:8080", "host:80/path"],
)
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    """gRPC would call port 443 of a lone host, and port 34463 for 99999."""
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=f"{address!r} is neither HOST:PORT nor unix:/path$"):
            kind(address)


@pytest.mark.parametrize("scheme", ["http://", "https://", "grpc://"])
async def test_the_scheme_of_a_web_address_is_to_be_left_out(scheme: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=f"is neither HOST:PORT nor unix:/path: leave out {scheme}$"):
            kind(f"{scheme}127.0.0.1:8181")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8080",
        "ortmesh-gateway.ortmesh:8080",
        "[::1]:8080",
        "unix:/run/mesh.sock",
        "unix:///run/mesh.sock",
        "dns:///mesh.local:8080",
        "dns://10.0.0.1/mesh.local:8080",
        "ipv4:10.0.0.1:8080,10.0.0.2:8080",
        "ipv6:[::1]:8080",
    ],
)
def test_the_targets_of_grpc_are_addresses(address: str) -> None:
    assert check_target(address) == address
    Client(address).close()


async def test_the_asyncio_client_has_the_same_timeout(silent_port: int) -> None:
    async with AsyncClient(f"127.0.0.1:{silent_port}", timeout_seconds=0.5) as mesh:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await mesh.nlp.Embed(EmbedRequest(texts=["x"]))
    assert failed.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
