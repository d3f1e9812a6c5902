"""OIP's ModelInfer: tensors in, through the model's batcher, tensors out. Stage: task.

Small raw requests take the direct way: read in the thread that received them, answered by the executor's thread,
no event loop in between. Large, typed and BYTES tensors are read and written in the pool: an executor is not held by
a small request's large answer.
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
        results = await model.infer(tensors, call, outputs=_names(outputs, model))
        encoder = Encoder(model, outputs, request.id, said.raw)
        nbytes = encoder.nbytes(results)
        if encoder.plain and nbytes <= DIRECT_BYTES:
            return Encoded(encoder(results))
        return Encoded(await call.pool.run(call, encoder, results, nbytes=nbytes))

    def direct(self, request: Any, call: Call, reply: Reply) -> bool:
        """Submits a small raw request from the receiving thread; False for any other."""
        if not request.raw_input_contents:
            return False
        model = self.models.named(request.model_name, request.model_version, call)
        said = declared(request, model.inputs)
        if not _is_light(said):
            return False
        outputs = wanted(request, model.outputs)
        encoder = Encoder(model, outputs, request.id, raw=True)
        if not encoder.plain:
            return False
        answer = DirectAnswer(reply, encoder, call)
        tensors, names = tensors_of(request, said), _names(outputs, model)
        model.submit(model.make_item(tensors, answer=answer, call=call, pad=False, outputs=names))
        return True


class Encoder:
    """What is known of an answer before its outputs are."""

    __slots__ = ("model", "plain", "raw", "request_id", "wanted")

    def __init__(self, model: Model, wanted: Sequence[TensorInfo], request_id: str, raw: bool) -> None:
        self.model = (model.name, model.version)
        self.wanted = wanted
        self.request_id = request_id
        self.raw = raw
        self.plain = raw
        """True when the values are copied as they are, not one by one."""
        for info in wanted:  # `all` takes three times as long
            if info.datatype == "BYTES":
                self.plain = False

    def __call__(self, outputs: Tensors) -> bytes:
        """The serialized answer."""
        return encode(self.model, self.wanted, outputs, request_id=self.request_id, raw=self.raw)

    def nbytes(self, outputs: Tensors) -> int:
        """Bytes of the wanted outputs (of BYTES, 8 an element)."""
        nbytes = 0
        for info in self.wanted:  # `sum` over a generator takes twice as long
            nbytes += outputs[info.name].nbytes
        return nbytes


class DirectAnswer:
    """An item's outputs straight to the wire: small ones in the executor's thread, others in the pool."""

    __slots__ = ("_call", "_encoder", "_reply")

    def __init__(self, reply: Reply, encoder: Encoder, call: Call) -> None:
        self._reply = reply
        self._encoder = encoder
        self._call = call

    def emit(self, outputs: Tensors) -> None:
        """ModelInfer has one answer: programs that emit pieces are called through streams."""
        raise TypeError("this model answers in pieces")

    def finish(self, outputs: Tensors) -> None:
        """Answers, or has the pool answer. A failure to encode is this caller's answer, not the executor's end."""
        try:
            nbytes = self._encoder.nbytes(outputs)
            if nbytes <= DIRECT_BYTES:
                self._answer(outputs)
            else:
                self._call.pool.submit(self._call, self._answer, outputs, nbytes=nbytes, fail=self._reply.fail)
        except Exception as error:
            self._reply.fail(error)

    def fail(self, error: BaseException) -> None:
        """Answers with the error."""
        self._reply.fail(error)

    def _answer(self, outputs: Tensors) -> None:
        self._reply.finish(self._encoder(outputs))


def _names(outputs: Sequence[TensorInfo], model: Model) -> list[str] | None:
    return [info.name for info in outputs] if len(outputs) < len(model.outputs) else None


def _is_light(said: Declared) -> bool:
    return said.raw and said.nbytes <= DIRECT_BYTES and not said.text
