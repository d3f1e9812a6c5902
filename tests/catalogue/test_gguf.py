"""GGUF files of Llamas, on a small one written here: what is read, converted and left as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tokenizers import Tokenizer

from ortmesh.catalogue.recipes import smollm2_135m_instruct, smollm2_135m_instruct_f16
from ortmesh.catalogue.recipes._gguf import Gguf, in_16_bits, llama_shape, llama_weights, read_gguf
from ortmesh.catalogue.recipes._graph import Array
from ortmesh.catalogue.recipes._nbits import rounded
from tests.nlp import plain_llama, tiny_llama

SHAPE = tiny_llama.SHAPE
Q4_1, Q8_0 = GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0
HEADS = {"attn_q.weight": SHAPE.heads, "attn_k.weight": SHAPE.kv_heads}


def in_gguf_order(matrix: Array, heads: int) -> Array:
    """Rows of queries and keys as llama.cpp's converter puts them."""
    rows = matrix.reshape(heads, 2, SHAPE.head_size // 2, -1).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(matrix.shape))


def in_graph_order(matrix: Array, heads: int) -> Array:
    """The way back."""
    return matrix.reshape(heads, SHAPE.head_size // 2, 2, -1).swapaxes(1, 2).reshape(matrix.shape)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of the tests in 4 bits, as a quantizer of llama.cpp's would leave it."""
    path = tmp_path_factory.mktemp("gguf") / smollm2_135m_instruct.SOURCE
    writer = GGUFWriter(path, "llama")
    _write_facts(writer)
    weights = tiny_llama.weights()
    for name, norm in weights.norms.items():
        writer.add_tensor(name, norm)
    for name, matrix in weights.matrices.items():
        heads = HEADS.get(name.split(".", 2)[-1])
        numbers = matrix.numbers() if heads is None else in_gguf_order(matrix.numbers(), heads)
        kind = Q8_0 if name == "token_embd.weight" else Q4_1
        writer.add_tensor(name, quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_facts(writer: GGUFWriter) -> None:
    tokens = tiny_llama.vocabulary()
    writer.add_block_count(SHAPE.layers)
    writer.add_context_length(SHAPE.positions)
    writer.add_embedding_length(SHAPE.hidden)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    writer.add_rope_freq_base(SHAPE.rope_base)
    writer.add_layer_norm_rms_eps(SHAPE.epsilon)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tiny_llama.MARKS else 1 for token in tokens])
    writer.add_token_merges(list(tiny_llama.MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(tiny_llama.TEMPLATE)


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    smollm2_135m_instruct.convert({source.name: source}, folder)
    return folder


def test_sizes_are_those_of_the_file(source: Path) -> None:
    shape = llama_shape(read_gguf(source))
    assert shape.epsilon == pytest.approx(SHAPE.epsilon)
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_size) == (2, 4, 2, 16)
    assert (shape.hidden, shape.vocabulary, shape.positions) == (64, SHAPE.vocabulary, 512)


def test_weights_are_those_of_the_file_in_8_bits(source: Path) -> None:
    """Off by half a level at most: a 254th of twice a block's largest."""
    read = read_gguf(source)
    found = llama_weights(read)
    assert found.norms.keys() | found.matrices.keys() == read.tensors.keys()
    for name, norm in found.norms.items():
        np.testing.assert_array_equal(norm, read.numbers(name))
    for name, matrix in found.matrices.items():
        heads = HEADS.get(name.split(".", 2)[-1])
        exact = read.numbers(name) if heads is None else in_graph_order(read.numbers(name), heads)
        np.testing.assert_allclose(matrix.numbers(), exact, atol=np.abs(exact).max() / 253)


def last_logits(model: Path, ids: Array, element: type[np.floating[Any]]) -> Array:
    """After a text of which nothing is there; keys and values have this type."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    nothing = np.zeros((1, SHAPE.kv_heads, 0, SHAPE.head_size), element)
    inputs: dict[str, Array] = {value.name: nothing for value in session.get_inputs() if value.name.startswith("past")}
    inputs |= {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), np.int64)}
    return np.asarray(session.run(["logits"], inputs)[0][0, 0])


def test_conversion_computes_what_the_weights_of_the_file_do(source: Path, converted: Path) -> None:
    """The weights here come through llama.cpp's order of rows and 4 bits: a wrong order would leave nothing alike."""
    ids = np.random.default_rng(2).integers(3, SHAPE.vocabulary, 24)
    got = last_logits(converted / "model.onnx", ids, np.float32)
    wanted = plain_llama.logits(SHAPE, tiny_llama.weights(), ids)[-1]
    assert got @ wanted > 0.9 * np.linalg.norm(got) * np.linalg.norm(wanted)


def test_conversion_to_16_bits_computes_with_the_very_weights_of_the_file(source: Path, tmp_path: Path) -> None:
    smollm2_135m_instruct_f16.convert({source.name: source}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(smollm2_135m_instruct_f16.OUTPUTS)
    ids = np.random.default_rng(2).integers(3, SHAPE.vocabulary, 24)
    got = last_logits(tmp_path / "model.onnx", ids, np.float16)
    wanted = plain_llama.logits(SHAPE, llama_weights(read_gguf(source), in_16_bits), ids)[-1]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=5e-3 * np.abs(wanted).max())


def test_conversion_writes_what_an_engine_needs_to_know(converted: Path) -> None:
    assert {path.name for path in converted.iterdir()} == set(smollm2_135m_instruct.OUTPUTS)
    facts = json.loads((converted / "generation.json").read_text(encoding="utf-8"))
    assert (facts["context_length"], facts["layers"], facts["kv_heads"], facts["head_size"]) == (512, 2, 2, 16)
    assert (facts["bos_token_id"], facts["eos_token_ids"], facts["pad_token_id"]) == (1, [2, 0], 2)
    assert (converted / "chat_template.jinja").read_text(encoding="utf-8") == tiny_llama.TEMPLATE


def test_digits_are_tokens_of_their_own_and_marks_are_special(converted: Path) -> None:
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))
    encoded = tokenizer.encode("the 2026<|im_end|>")
    assert encoded.tokens == ["the", "Ġ", "2", "0", "2", "6", "<|im_end|>"]
    assert tokenizer.decode(encoded.ids) == "the 2026"


def test_same_file_gives_the_same_bytes(source: Path, converted: Path, tmp_path: Path) -> None:
    smollm2_135m_instruct.convert({source.name: source}, tmp_path)
    for name in smollm2_135m_instruct.OUTPUTS:
        assert (tmp_path / name).read_bytes() == (converted / name).read_bytes()


def test_other_models_are_refused_rather_than_computed_wrong(source: Path) -> None:
    read = read_gguf(source)
    with pytest.raises(ValueError, match="expected a llama, not gpt2"):
        llama_shape(Gguf(read.facts | {"general.architecture": "gpt2"}, {}))
    with pytest.raises(ValueError, match="expected plain positions, not yarn"):
        llama_shape(Gguf(read.facts | {"llama.rope.scaling.type": "yarn"}, {}))
    biased = read.tensors | {"blk.0.attn_q.bias": read.tensors["output_norm.weight"]}
    with pytest.raises(ValueError, match=r"no part of a plain llama: blk\.0\.attn_q\.bias"):
        llama_weights(Gguf(read.facts, biased))


def test_eight_bits_are_near_and_keep_zero() -> None:
    numbers = np.random.default_rng(3).standard_normal((5, 128)).astype(np.float32)
    numbers[0], numbers[1, ::2] = 0, 0
    matrix = rounded(numbers)
    assert (matrix.rows, matrix.columns, matrix.block) == (5, 128, 64)
    np.testing.assert_allclose(matrix.numbers(), numbers, atol=np.abs(numbers).max() / 253)
    np.testing.assert_array_equal(matrix.numbers()[numbers == 0], 0)
