"""The graph that a causal model is made of, on a tiny one: beside NumPy, in chunks, in one buffer, of 8 and 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer

from ortmesh.catalogue.recipes._gguf import in_16_bits
from ortmesh.catalogue.recipes._graph import Array
from tests.nlp import plain_llama
from tests.nlp.tiny_llama import MARKS, SHAPE, weights, write_tiny_llama

LENGTH = 96  # of a row's buffer
NAMES = [f"{layer}.{side}" for layer in range(SHAPE.layers) for side in ("key", "value")]
ALIKE = 0.98  # the least cosine of logits whose activations were rounded to 8 bits: 0.995 was seen


class Stepper:
    """A session and the buffer of its rows, which is past and present at once."""

    def __init__(self, model: Path | bytes, rows: int, element: type[np.floating[Any]] = np.float32) -> None:
        self.element = element
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        size = (rows, SHAPE.kv_heads, LENGTH, SHAPE.head_size)
        self.buffers = {name: np.zeros(size, element) for name in NAMES}

    def step(self, ids: Array, lengths: list[int], first_row: int = 0) -> Array:
        """One run of rows from `first_row` on, of these lengths after it; logits [rows, vocabulary]."""
        binding = self.session.io_binding()
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(ids))
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_output("logits", "cpu")
        for name, buffer in self.buffers.items():
            part = buffer[first_row : first_row + len(ids)]
            place = ("cpu", 0, self.element, part.shape, part.ctypes.data)
            binding.bind_input(f"past_key_values.{name}", *place)
            binding.bind_output(f"present.{name}", *place)
        self.session.run_with_iobinding(binding)
        (logits, *_) = binding.get_outputs()
        return np.asarray(logits.numpy()[:, 0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return folder / "model.onnx"


def text(length: int, seed: int = 0) -> Array:
    """Random tokens, marks left out: i64 [length]."""
    return np.random.default_rng(seed).integers(len(MARKS), SHAPE.vocabulary, length)


@pytest.fixture(scope="module")
def exact(model: Path) -> bytes:
    """The same graph multiplying with floats as they are: rounded to 8 bits, a last digit may become a 250th."""
    loaded = onnx.load(model)
    for node in loaded.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    return loaded.SerializeToString()


def test_graph_computes_a_llama(model: Path, exact: bytes) -> None:
    ids = text(40)
    wanted = plain_llama.logits(SHAPE, weights(), ids)[-1]
    (floats,) = Stepper(exact, 1).step(ids[None], [40])
    np.testing.assert_allclose(floats, wanted, atol=1e-4)
    (rounded,) = Stepper(model, 1).step(ids[None], [40])
    assert rounded @ wanted > ALIKE * np.linalg.norm(rounded) * np.linalg.norm(wanted)


def test_graph_of_16_bits_computes_a_llama(tmp_path: Path) -> None:
    ids = text(40)
    plain = weights(kind=in_16_bits)
    wanted = plain_llama.logits(SHAPE, plain, ids)[-1]
    stepper = Stepper(write_tiny_llama(tmp_path, kind=in_16_bits) / "model.onnx", 1, np.float16)
    (found,) = stepper.step(ids[None], [40])
    np.testing.assert_allclose(found, wanted, atol=5e-3 * np.abs(wanted).max())
    (following,) = stepper.step(np.array([[7]]), [41])
    wanted = plain_llama.logits(SHAPE, plain, np.append(ids, 7))[-1]
    np.testing.assert_allclose(following, wanted, atol=5e-3 * np.abs(wanted).max())


def test_a_token_at_a_time_computes_the_same(exact: bytes) -> None:
    ids, stepper = text(20), Stepper(exact, 1)
    wanted = plain_llama.logits(SHAPE, weights(), ids)
    for place, token in enumerate(ids):
        (logits,) = stepper.step(np.array([[token]]), [place + 1])
        np.testing.assert_allclose(logits, wanted[place], atol=1e-4)


@pytest.mark.parametrize("chunk", [2, 7, 32])
def test_a_prompt_in_chunks_leaves_what_it_leaves_at_once(exact: bytes, chunk: int) -> None:
    ids, whole, parts = text(64), Stepper(exact, 1), Stepper(exact, 1)
    wanted = whole.step(ids[None], [64])
    for start in range(0, 64, chunk):
        end = min(start + chunk, 64)
        logits = parts.step(ids[None, start:end], [end])
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    for name, buffer in whole.buffers.items():
        np.testing.assert_allclose(parts.buffers[name], buffer, atol=1e-4)


def test_rows_of_several_lengths_step_together_as_alone(model: Path) -> None:
    """Two at least: a single row may be multiplied by another kernel."""
    lengths, together = [5, 30, 17, 2], Stepper(model, 4)
    alone = [Stepper(model, 2) for _ in lengths]
    for row, length in enumerate(lengths):
        prompt = text(length, row)[None]
        together.step(prompt, [length], first_row=row)
        alone[row].step(prompt, [length])
    for step in range(1, 4):
        ids, after = np.array([[10 * step + row] for row in range(4)]), [length + step for length in lengths]
        logits = together.step(ids, after)
        for row, own in enumerate(alone):
            beside_nothing = own.step(np.repeat(ids[[row]], 2, axis=0), [after[row], 1])
            np.testing.assert_array_equal(logits[row], beside_nothing[0])


def test_past_may_be_apart_from_present(model: Path) -> None:
    ids, shared = text(8)[None], Stepper(model, 1)
    wanted = shared.step(ids, [8])
    nothing = np.zeros((1, SHAPE.kv_heads, 0, SHAPE.head_size), np.float32)
    inputs = {"input_ids": ids, "attention_mask": np.ones((1, 8), np.int64)}
    inputs |= {f"past_key_values.{name}": nothing for name in NAMES}
    names = ["logits", *(f"present.{name}" for name in NAMES)]
    logits, *present = shared.session.run(names, inputs)
    np.testing.assert_array_equal(logits[:, 0], wanted)
    for name, value in zip(NAMES, present, strict=True):
        np.testing.assert_array_equal(value, shared.buffers[name][:, :, :8])


def test_embedding_and_head_are_stored_once(model: Path) -> None:
    graph = onnx.load(model).graph
    large = [constant for constant in graph.initializer if SHAPE.vocabulary in constant.dims]
    assert {constant.name for constant in large} == {"token_embd.weight.codes", "token_embd.weight.scales"}
    assert next(value.name for value in graph.output) == "logits"


def test_tiny_tokenizer_keeps_every_text_and_knows_marks(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    said = "the cat in 2026, é東😀\n\x00"
    encoded = tokenizer.encode(f"<|im_start|>{said}<|im_end|>")
    assert [encoded.ids[0], encoded.ids[-1]] == [1, 2]
    assert tokenizer.decode(encoded.ids) == said
    assert max(encoded.ids) < SHAPE.vocabulary
