"""Streams from the caller through Envoy: both ways at once, to their end, and once only."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ortmesh import descriptors
from ortmesh.client import AsyncClient, Client
from ortmesh.errors import BadInput, NotReady
from ortmesh.front.call import Call
from ortmesh.front.methods import private
from ortmesh.speech.v1.speech_pb2 import StreamingDetectSpeechRequest, SynthesizeRequest, SynthesizeResponse
from ortmesh_gateway.methods import method_routes
from ortmesh_gateway.routes import routes_of
from tests.gateway.backend import Backend
from tests.gateway.conftest import HANG_SECONDS, MIB, Mesh

METHOD = "StreamingDetectSpeech"
Answer: Any = private("ortmesh.speech.v1.StreamingDetectSpeechResponse")


class Listener:
    """Answers each message with its bytes, as a model's name; `deaf` reads no more, `bye` ends, `bad` and `not ready`
    are errors."""

    def __init__(self) -> None:
        self.calls = 0
        self.left: list[str] = []
        self.ended = asyncio.Event()

    async def __call__(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        self.calls += 1
        how = "ended itself"
        try:
            async for request in requests:
                said = request.audio.decode()
                if said == "not ready":
                    raise NotReady("the model is being loaded")
                if said == "bad":
                    raise BadInput("audio", "became bad")
                yield Answer(model={"name": said[:100]})
                if said == "bye":
                    return
                if said == "deaf":
                    await asyncio.Event().wait()
            yield Answer(model={"name": "heard all"})
            how = "heard all"
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self.left.append(how)
            self.ended.set()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(params=["native", "grpcio"])
async def speech(request: pytest.FixtureRequest, folder: Path, listener: Listener) -> AsyncIterator[Backend]:
    """A speech service on each adapter."""
    backend = Backend("speech", f"unix:{folder}/speech", adapter=request.param)
    backend.streams[METHOD] = listener
    await backend.start()
    yield backend
    await backend.stop()


async def _say(call: Any, text: str | bytes) -> str:
    await call.write(_audio(text))
    return str((await call.read()).model.name)


def _audio(text: str | bytes) -> StreamingDetectSpeechRequest:
    return StreamingDetectSpeechRequest(audio=text.encode() if isinstance(text, str) else text)


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def _refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read_all(call)
    return caught.value


async def test_both_ways_flow_at_once_and_a_half_close_is_passed_on(
    mesh: Mesh, speech: Backend, listener: Listener
) -> None:
    async with mesh(speech) as caller:
        call = caller.speech.StreamingDetectSpeech()
        for number in range(50):
            assert await _say(call, str(number)) == str(number)
        await call.done_writing()
        last: Any = await call.read()
        assert last.model.name == "heard all"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert 43_190 < speech.calls[0].deadline - speech.calls[0].arrival < 43_201, "the method's own deadline"


async def test_the_synchronous_client_streams_both_ways(mesh: Mesh, speech: Backend, listener: Listener) -> None:
    def talk(address: str) -> list[str]:
        with Client(address) as client:
            said = (_audio(text) for text in ("a", "b"))
            return [answer.model.name for answer in client.speech.StreamingDetectSpeech(said, timeout=HANG_SECONDS)]

    async with mesh(speech) as caller:
        assert await asyncio.to_thread(talk, caller.proxy.address) == ["a", "b", "heard all"]


async def test_the_asyncio_client_streams_both_ways(mesh: Mesh, speech: Backend, listener: Listener) -> None:
    async with mesh(speech) as caller, AsyncClient(caller.proxy.address) as client:
        call = client.speech.StreamingDetectSpeech(_audio(text) for text in ("a", "b"))
        assert [answer.model.name async for answer in call] == ["a", "b", "heard all"]


async def test_the_service_may_end_first(mesh: Mesh, speech: Backend, listener: Listener) -> None:
    async with mesh(speech) as caller:
        call = caller.speech.StreamingDetectSpeech()
        assert await _say(call, "bye") == "bye"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_a_caller_that_leaves_is_told_of_at_once(mesh: Mesh, speech: Backend, listener: Listener) -> None:
    async with mesh(speech) as caller:
        call = caller.speech.StreamingDetectSpeech()
        assert await _say(call, "hello") == "hello"
        call.cancel()
        await asyncio.wait_for(listener.ended.wait(), HANG_SECONDS)
        assert listener.left == ["CancelledError"]


async def test_an_error_in_the_middle_arrives_with_its_details(mesh: Mesh, speech: Backend, listener: Listener) -> None:
    async with mesh(speech) as caller:
        call = caller.speech.StreamingDetectSpeech()
        assert await _say(call, "hello") == "hello"
        await call.write(_audio("bad"))
        error = await _refused(call)
        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "audio: became bad")
        assert "grpc-status-details-bin" in dict(error.trailing_metadata() or ())


async def test_a_message_over_the_limit_is_refused_by_the_service(
    mesh: Mesh, speech: Backend, listener: Listener
) -> None:
    async with mesh(speech) as caller:
        call = caller.speech.StreamingDetectSpeech()
        assert len(await _say(call, b"x" * MIB)) == 100
        await call.write(_audio(b"x" * (MIB + 8192)))
        assert (await _refused(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_was_said_is_never_repeated_to_another_replica(
    mesh: Mesh, speech: Backend, listener: Listener
) -> None:
    async with mesh(speech) as caller:
        call = caller.speech.StreamingDetectSpeech()
        await call.write(_audio("not ready"))
        assert (await _refused(call)).code() is grpc.StatusCode.UNAVAILABLE
        assert listener.calls == 1


async def test_a_caller_whom_nobody_hears_is_held_back(mesh: Mesh, speech: Backend, listener: Listener) -> None:
    """A few MiB lie between the two; others go on."""
    async with mesh(speech) as caller:
        call = caller.speech.StreamingDetectSpeech()
        assert await _say(call, "deaf") == "deaf"
        written = 0
        while written < 64 * MIB:
            writing = asyncio.create_task(call.write(_audio(b"x" * 65536)))
            await asyncio.wait((writing,), timeout=1)
            if not writing.done():
                break
            written += 65536
        assert written < 16 * MIB
        assert await _say(caller.speech.StreamingDetectSpeech(), "others") == "others"
        call.cancel()
        await asyncio.wait((writing,))


async def test_a_stream_of_tensors_goes_where_the_model_is_that_its_metadata_names(
    mesh: Mesh, nlp: Backend, vision: Backend
) -> None:
    """Its messages are not looked at: without the name nobody knows where to."""
    request = descriptors.oip("ModelInferRequest")(model_name="efficientnet")

    async with mesh(nlp, vision) as caller:

        async def nothing() -> AsyncIterator[Any]:
            """A refusal needs no message; one that is written after it is INTERNAL by gRPC's own client."""
            await asyncio.Event().wait()
            yield request

        def infer(messages: Any, *metadata: tuple[str, str]) -> Any:
            stream = caller.channel.stream_stream(
                f"/{descriptors.OIP_SERVICE}/ModelStreamInfer",
                request_serializer=descriptors.oip("ModelInferRequest").SerializeToString,
                response_deserializer=descriptors.oip("ModelStreamInferResponse").FromString,
            )
            return stream(messages, metadata=metadata)

        stream = infer(iter([request, request]), ("ortmesh-model", "efficientnet"))
        answers = [answer.infer_response async for answer in stream]
        assert [(answer.model_name, answer.model_version) for answer in answers] == [("efficientnet", "vision")] * 2
        error = await _refused(infer(nothing()))
        assert (error.code(), "ortmesh-model" in str(error.details())) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        error = await _refused(infer(nothing(), ("ortmesh-model", "eficientnet")))
        assert (error.code(), "efficientnet" in str(error.details())) == (grpc.StatusCode.NOT_FOUND, True)


@pytest.mark.parametrize("method", [each for each in method_routes() if not each.buffered], ids=lambda each: each.path)
def test_a_stream_passes_unbuffered_and_is_not_retried(method: Any) -> None:
    for route in routes_of(method, {}, ["speech"]):
        assert "envoy.filters.http.buffer" not in route["typed_per_filter_config"]
        assert "envoy.filters.http.lua" not in route["typed_per_filter_config"]
        assert "retry_policy" not in route["route"]


async def _talking(request: Any, call: Call) -> AsyncIterator[Any]:
    """Whatever it is asked, until it is ended."""
    for number in itertools.count():
        yield SynthesizeResponse(audio=str(number).encode())
        await asyncio.sleep(0.003)


async def test_a_deadline_that_passes_in_the_middle_of_a_stream_is_told_as_such(mesh: Mesh, speech: Backend) -> None:
    """A stream that the gateway broke off would be INTERNAL to its caller."""
    speech.streams["Synthesize"] = _talking

    async def listen(caller: Any, seconds: float) -> Any:
        call = caller.speech.Synthesize(SynthesizeRequest(text="a"), timeout=seconds)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await _read_all(call)
        return await call.code()

    async with mesh(speech) as caller:
        codes = await asyncio.gather(*(listen(caller, 0.1 + number / 100) for number in range(60)))
    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
