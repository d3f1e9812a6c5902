"""The session executor: take, stack, one run, split, finish. Stage: executor."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime

from ortmesh.serving.executor.failures import failure_of
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.judge import Judge
from ortmesh.serving.executor.loop import is_wanted, one_by_one, serve
from ortmesh.serving.executor.stack import NotByRows, join, must_have_rows, split, stack
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.resident import Resident
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Array, Item, Meter, Pile, Tensors


class SessionExecutor:
    """Runs one session. `serve` belongs in a thread of its own."""

    def __init__(
        self,
        session: InterruptibleSession,
        signature: Signature,
        *,
        limit: int,
        meter: Meter,
        resident: Resident | None = None,
        proof: Tensors | None = None,
    ) -> None:
        self._session = session
        self._signature = signature
        self._outputs = list(signature.outputs)
        self._limit = limit
        self._meter = meter
        self._bound = _needs_binding(session, signature)
        self._proof = proof
        on_device = session.get_providers()[0] != "CPUExecutionProvider"
        self._judge = Judge(on_device=on_device)
        self._turn = Turn(session)
        self._holder = (resident or Resident()).holder(session.shrink)
        self.on_alone: Callable[[str], None] = lambda reason: None
        """Told, with the reason, when a batch showed that items must run one at a time."""

    def serve(self, pile: Pile) -> None:
        """Runs batches until the pile closes; ExecutorBroken when it can't go on."""
        serve(pile, self.run, self._limit, self._turn, self._holder)

    def interrupt(self) -> None:
        """Ends what it computes, and whatever it would compute later."""
        self._turn.interrupt()

    def interrupt_unwanted(self) -> float:
        """Ends what it computes when nobody waits for it; for how many seconds it has not heeded that, else 0."""
        return self._turn.interrupt_unwanted()

    def run(self, items: Sequence[Item]) -> None:
        """Runs items as one batch and ends each. A batch that fails is run again one by one: only the culprit fails."""
        try:
            pieces = self._compute(items)
        except NotByRows as error:
            self.serve_alone()
            self.on_alone(f"results depended on the rest of the batch ({error})")
            one_by_one(items, self.run, error)
        except Exception as error:
            if len(items) > 1:
                one_by_one(items, self.run, error)
            elif is_wanted(items[0]):
                items[0].fail(self._judge.failed(error, self._prove))
        else:
            self._judge.succeeded()
            for item, outputs in zip(items, pieces, strict=True):
                item.finish(outputs)

    def serve_alone(self) -> None:
        """From now on one item at a time: warm-up's samples did not show what a caller's did."""
        self._limit = 1

    def _compute(self, items: Sequence[Item]) -> list[Tensors]:
        if len(items) == 1 and items[0].rows > self._limit > 1:
            return [self._compute_in_slices(items[0])]
        started = time.perf_counter()
        feeds, padded = stack(items, self._signature)
        outputs = self._run_bound(feeds) if self._bound else self._run(feeds)
        self._meter.batch(sum(item.rows for item in items), padded, time.perf_counter() - started)
        return split(outputs, items, self._signature)

    def _compute_in_slices(self, item: Item) -> Tensors:
        """An item of more rows than a batch: its rows do not depend on each other, so it runs in parts.

        One caller can't hold the executor, nor the memory, for longer than a batch after it left.
        """
        parts: list[Tensors] = []
        for start in range(0, item.rows, self._limit):
            item.check()
            rows = min(self._limit, item.rows - start)
            started = time.perf_counter()
            feeds = {name: self._slice(name, array, start, rows) for name, array in item.tensors.items()}
            parts.append(self._run_bound(feeds) if self._bound else self._run(feeds))
            must_have_rows(parts[-1], rows, self._signature)
            self._meter.batch(rows, 0.0, time.perf_counter() - started)
        return join(parts, self._signature)

    def _slice(self, name: str, array: Array, start: int, rows: int) -> Array:
        axis = self._signature.inputs[name].batch_axis
        if axis is None:
            return array
        return np.take(array, range(start, start + rows), axis=axis)

    def _prove(self) -> BaseException | None:
        """What goes wrong with the sample that it has computed before; None when nothing does, or there is none."""
        if self._proof is None:
            return None
        feeds = dict(self._proof)
        try:
            self._run_bound(feeds) if self._bound else self._run(feeds)
        except Exception as error:
            return failure_of(error, on_device=False)
        return None

    def _run(self, feeds: dict[str, Array]) -> Tensors:
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))

    def _run_bound(self, feeds: dict[str, Array]) -> Tensors:
        """With bound inputs and outputs: for CUDA (one copy each way) and for BF16, which `run` can't return."""
        binding = self._session.io_binding()
        kept = [_value(array, self._signature.inputs[name].datatype) for name, array in feeds.items()]
        for name, value in zip(feeds, kept, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, map(_array, binding.get_outputs()), strict=True))


def _needs_binding(session: InterruptibleSession, signature: Signature) -> bool:
    infos = [*signature.inputs.values(), *signature.outputs.values()]
    if any(info.datatype == "BYTES" for info in infos):
        return False
    return session.get_providers()[0] != "CPUExecutionProvider" or any(info.datatype == "BF16" for info in infos)


def _value(array: Array, datatype: str) -> Any:
    contiguous = np.ascontiguousarray(array)
    if datatype == "BF16":
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, 16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(contiguous)


def _array(value: Any) -> Array:
    if value.data_type() == "tensor(bfloat16)":  # NumPy has no such type and `numpy()` refuses: copied as its bits
        raw = (ctypes.c_char * value.tensor_size_in_bytes()).from_address(value.data_ptr())
        return np.frombuffer(raw, np.uint16).reshape(value.shape()).copy()
    return np.asarray(value.numpy())
