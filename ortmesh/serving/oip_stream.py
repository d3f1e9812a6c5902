"""OIP's ModelStreamInfer, Triton's extension: one request after the other on a stream. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ortmesh import descriptors
from ortmesh.errors import OrtmeshError
from ortmesh.front.call import Call
from ortmesh.serving.oip_infer import Encoded, ModelInfer
from ortmesh.serving.oip_wire import prefix

Answer = descriptors.oip("ModelStreamInferResponse")
ANSWER_FIELD = Answer.DESCRIPTOR.fields_by_name["infer_response"].number


class ModelStreamInfer:
    """Answers each message of a stream as ModelInfer does, in their order."""

    def __init__(self, infer: ModelInfer) -> None:
        self.infer = infer

    async def __call__(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        """What is wrong with a message, whatever it is, is its answer; the stream goes on."""
        while True:
            try:
                request = await anext(requests)
            except StopAsyncIteration:
                return
            except OrtmeshError as error:
                call.check()
                yield _refusal(error, "")
            else:
                yield await self._answer(request, call)

    async def _answer(self, request: Any, call: Call) -> Any:
        try:
            with call.part() as part:
                answer = (await self.infer(request, part)).SerializeToString()
        except OrtmeshError as error:
            call.check()  # what ends the whole stream is no answer to one message
            return _refusal(error, request.id)
        return Encoded(prefix(ANSWER_FIELD, len(answer)) + answer)


def _refusal(error: OrtmeshError, request_id: str) -> Any:
    return Answer(error_message=f"[{error.code}] {error.message}", infer_response={"id": request_id})
