"""OIP's ModelInfer: tensors in, through the model's batcher, tensors out. Stage: task.

Small raw requests take the direct way: read in the thread that received them, answered by the executor's thread,
no event loop in between. Large, typed and BYTES tensors are read and written in the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ortmesh.front.call import Call
from ortmesh.front.methods import Reply
from ortmesh.serving.oip_request import Declared, declared, tensors_of, wanted
from ortmesh.serving.oip_response import encode
from ortmesh.serving.signature import TensorInfo
from ortmesh.serving.types import Tensors

if TYPE_CHECKING:
    from ortmesh.serving.model import Model
    from ortmesh.serving.models import Models

DIRECT_BYTES = 256 * 1024
"""Up to here a tensor is copied in less time than handing it to another thread takes."""


class Encoded:
    """An answer that is serialized already: the front asks a message for its bytes, and this one has them."""

    __slots__ = ("_payload",)

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
        """The answer's bytes."""
        return self._payload


class ModelInfer:
    """Runs a model on the tensors of one request."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(self, request: Any, call: Call) -> Encoded:
        """Answers any request. BadInput names the field; NotFound, NotReady and what the model's batcher raises."""
        model = self.models.named(request.model_name, request.model_version, call)
        said, outputs = declared(request, model.inputs), wanted(request, model.outputs)
        if _is_light(said):
            tensors = tensors_of(request, said)
        else:
            tensors = await call.in_pool(tensors_of, request, said)
        results = await model(tensors, call, pad=False)
        encoder = Encoder(model, outputs, request.id, said.raw)
        if said.raw and encoder.is_light(results):
            return Encoded(encoder(results))
        return Encoded(await call.in_pool(encoder, results))

    def direct(self, request: Any, call: Call, reply: Reply) -> bool:
        """Submits a small raw request from the receiving thread; False for any other."""
        if not request.raw_input_contents:
            return False
        model = self.models.named(request.model_name, request.model_version, call)
        said = declared(request, model.inputs)
        if not _is_light(said):
            return False
        encoder = Encoder(model, wanted(request, model.outputs), request.id, raw=True)
        answer = DirectAnswer(reply, encoder)
        model.submit(model.make_item(tensors_of(request, said), answer=answer, call=call, pad=False))
        return True


class Encoder:
    """What is known of an answer before its outputs are."""

    __slots__ = ("model", "raw", "request_id", "wanted")

    def __init__(self, model: Model, wanted: Sequence[TensorInfo], request_id: str, raw: bool) -> None:
        self.model = (model.name, model.version)
        self.wanted = wanted
        self.request_id = request_id
        self.raw = raw

    def __call__(self, outputs: Tensors) -> bytes:
        """The serialized answer."""
        return encode(self.model, self.wanted, outputs, request_id=self.request_id, raw=self.raw)

    def is_light(self, outputs: Tensors) -> bool:
        """Whether the raw answer is quicker written than handed to the pool."""
        arrays = [outputs[info.name] for info in self.wanted]
        return sum(array.nbytes for array in arrays) <= DIRECT_BYTES and not any(
            array.dtype.hasobject for array in arrays
        )


class DirectAnswer:
    """An item's outputs straight to the wire, in the executor's thread."""

    __slots__ = ("_encoder", "_reply")

    def __init__(self, reply: Reply, encoder: Encoder) -> None:
        self._reply = reply
        self._encoder = encoder

    def emit(self, outputs: Tensors) -> None:
        """ModelInfer has one answer: programs that emit pieces are called through streams."""
        raise TypeError("this model answers in pieces")

    def finish(self, outputs: Tensors) -> None:
        """Answers. A failure to encode is this caller's answer, not the executor's end."""
        try:
            payload = self._encoder(outputs)
        except Exception as error:
            self._reply.fail(error)
        else:
            self._reply.finish(payload)

    def fail(self, error: BaseException) -> None:
        """Answers with the error."""
        self._reply.fail(error)


def _is_light(said: Declared) -> bool:
    return said.raw and said.nbytes <= DIRECT_BYTES and not said.text
