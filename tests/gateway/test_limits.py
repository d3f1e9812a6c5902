"""What Envoy refuses before a service sees it, and with which code."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import Any

import grpc
import pytest

from ortmesh.errors import ModelFailed
from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.vision.v1 import vision_pb2
from tests.gateway.backend import Backend
from tests.gateway.conftest import HANG_SECONDS, MIB, Mesh

EMBED = "/ortmesh.nlp.v1.NlpService/Embed"


async def _code(awaited: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaited
    return caught.value.code()


def _texts(message_bytes: int) -> nlp_pb2.EmbedRequest:
    """A request of exactly so many bytes."""
    request = nlp_pb2.EmbedRequest(texts=["a" * (message_bytes - 8)])
    return nlp_pb2.EmbedRequest(texts=["a" * (2 * message_bytes - 8 - request.ByteSize())])


async def test_texts_have_4_mib_and_not_a_byte_more(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        fits, over = _texts(4 * MIB), _texts(4 * MIB + 1)
        assert (fits.ByteSize(), over.ByteSize()) == (4 * MIB, 4 * MIB + 1)
        await caller.nlp.Embed(fits)
        with pytest.raises(grpc.aio.AioRpcError, match="larger than the method's 4194304 bytes") as caught:
            await caller.nlp.Embed(over)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(nlp.calls) == 1


async def test_pictures_have_32_mib(mesh: Mesh, vision: Backend) -> None:
    def picture(size: int) -> vision_pb2.ClassifyRequest:
        return vision_pb2.ClassifyRequest(image=vision_pb2.Image(encoded=b"x" * size))

    async with mesh(vision) as caller:
        await caller.vision.Classify(picture(32 * MIB - 64))
        assert await _code(caller.vision.Classify(picture(32 * MIB))) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(vision.calls) == 1


async def test_compressed_requests_are_unimplemented(mesh: Mesh, nlp: Backend) -> None:
    """A few hundred KB may unpack to gigabytes, and only after they were taken in."""
    async with mesh(nlp) as caller:
        for kind in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            assert await _code(caller.nlp.Embed(_texts(100), compression=kind)) == grpc.StatusCode.UNIMPLEMENTED
        assert not nlp.calls


async def test_unknown_methods_and_absent_families_are_unimplemented(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        for path in ("/ortmesh.nlp.v1.NlpService/Sing", "/foo.Bar/Baz", f"{EMBED}/x", f"{EMBED}?x", "/"):
            call: Any = caller.channel.unary_unary(path)
            assert await _code(call(b"")) == grpc.StatusCode.UNIMPLEMENTED
        absent = caller.vision.Classify(vision_pb2.ClassifyRequest())
        with pytest.raises(grpc.aio.AioRpcError, match="this mesh runs no vision service"):
            await absent


async def test_the_callers_deadline_reaches_the_service_and_ends_the_call(mesh: Mesh, nlp: Backend) -> None:
    async def silent(request: Any, call: Call) -> Any:
        await asyncio.sleep(60)

    async with mesh(nlp) as caller:
        await caller.nlp.Embed(nlp_pb2.EmbedRequest(), timeout=30)
        await caller.nlp.Embed(nlp_pb2.EmbedRequest())
        lengths = [call.deadline - call.arrival for call in nlp.calls]
        assert 15 < lengths[0] < 30.5 < 45 < lengths[1] < 60.5, "the caller's own, and the method's default"
        nlp.answers["Embed"] = silent
        code = await _code(caller.nlp.Embed(nlp_pb2.EmbedRequest(), timeout=0.2))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_trace_headers_and_names_with_underscores_pass(mesh: Mesh, nlp: Backend) -> None:
    sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b", "my_id": "7"}
    async with mesh(nlp) as caller:
        await caller.nlp.Embed(nlp_pb2.EmbedRequest(), metadata=tuple(sent.items()))
        assert sent.items() <= nlp.calls[0].metadata.items()


async def test_a_service_without_a_model_ready_says_so_itself(mesh: Mesh, nlp: Backend) -> None:
    """Not healthy, but there: its own error tells more than that no replica is healthy."""

    async def refuse(request: Any, call: Call) -> Any:
        raise ModelFailed("minilm: its file is broken")

    nlp.answers["Embed"] = refuse
    nlp.serve(False)
    async with mesh(nlp, healthy=False) as caller:
        with pytest.raises(grpc.aio.AioRpcError, match="its file is broken") as caught:
            await caller.nlp.Embed(nlp_pb2.EmbedRequest())
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_service_that_is_away_is_unavailable_at_once(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        await nlp.stop()
        assert (
            await _code(caller.nlp.Embed(nlp_pb2.EmbedRequest(), timeout=HANG_SECONDS)) == grpc.StatusCode.UNAVAILABLE
        )


@pytest.mark.skipif(shutil.which("curl") is None, reason="a gRPC library cannot send what curl can")
async def test_malformed_requests_are_refused_by_envoy(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        url = f"http://{caller.proxy.address}{EMBED}"
        post = ["--data-binary", "", "-H", "content-type: application/grpc"]
        for timeout in ("1x", "-1S", "123456789S", "1", "S", "1 S", "0x1S"):
            assert "grpc-status: 3" in await _curl(url, *post, "-H", f"grpc-timeout: {timeout}")
        assert "HTTP/2 405" in await _curl(url)
        assert "HTTP/2 404" in await _curl(url, "--data-binary", "", "-H", "content-type: application/json")
        assert "grpc-status: 3" in await _curl(url.replace("/Embed", "%2fEmbed"), *post)
        assert not nlp.calls


async def _curl(url: str, *arguments: str) -> str:
    command = [
        "curl",
        "-s",
        "-i",
        "--max-time",
        f"{HANG_SECONDS:g}",
        "--http2-prior-knowledge",
        "--path-as-is",
        url,
        *arguments,
    ]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    return done.stdout
