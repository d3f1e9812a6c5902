"""The recipes' readers and builders on small weights made here; the real models are tested through the store."""

import json
import os
import pickle
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from ortmesh.catalogue.recipes import (
    _ctranslate2,
    _pickles,
    _whisper_files,
    centerface,
    efficientnet_lite0,
    hibari,
    minilm_l6_v2,
    minilm_l6_v2_f16,
    ppocr_v6_det,
    ppocr_v6_rec,
    resemblyzer,
    silero_vad,
    whisper_tiny_en,
)
from ortmesh.catalogue.recipes._graph import CONTRIB, Array, Graph, float32, int64
from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor.sessions import Sessions

RANDOM = np.random.default_rng(0)


def run(model: Path, **inputs: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def normal(*shape: int, scale: float = 0.05) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32) * np.float32(scale)


# --- pickled weights ---------------------------------------------------------------------------------------


class Storage:
    """Stands for a torch storage while a test pickles one."""

    def __init__(self, key: str, numbers: Array) -> None:
        self.key, self.numbers = key, numbers


class Tensor:
    """Stands for a torch tensor while a test pickles one."""

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        hooks: dict[str, object] = OrderedDict()
        self.state = (storage, offset, shape, strides, False, hooks)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.state


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        if not isinstance(obj, Storage):
            return None
        kind = sys.modules["torch"].FloatStorage
        return ("storage", kind, obj.key, "cpu", obj.numbers.size, None)


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pickle looks up to write the two names; reading needs none of it."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})  # type: ignore[attr-defined]
    utils._rebuild_tensor_v2 = _named("torch._utils", "_rebuild_tensor_v2")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def _named(module: str, name: str) -> Callable[..., None]:
    def function(*arguments: object) -> None: ...

    function.__module__, function.__name__, function.__qualname__ = module, name, name
    return function


def write_legacy(path: Path, state: object, storages: list[Storage]) -> Path:
    facts = {"protocol_version": _pickles.PROTOCOL, "little_endian": True, "type_sizes": {}}
    with path.open("wb") as file:
        for value in (_pickles.MAGIC, _pickles.PROTOCOL, facts, state, [s.key for s in storages]):
            Pickler(file, protocol=2).dump(value)
        for storage in storages:
            file.write(struct.pack("<q", storage.numbers.size) + storage.numbers.tobytes())
    return path


@pytest.mark.usefixtures("fake_torch")
def test_pickled_tensors_are_read_through_their_strides_and_offsets(tmp_path: Path) -> None:
    storage = Storage("7", np.arange(10, dtype=np.float32))
    state = OrderedDict(a=Tensor(storage, 0, (2, 3), (1, 2)), b=Tensor(storage, 6, (4,), (1,)))
    weights = _pickles.read_weights(write_legacy(tmp_path / "w.pth", state, [storage]))
    assert list(weights) == ["a", "b"]
    np.testing.assert_array_equal(weights["a"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(weights["b"], [6, 7, 8, 9])


@pytest.mark.usefixtures("fake_torch")
def test_an_entry_of_a_checkpoint_is_read_past_the_tensors_of_others(tmp_path: Path) -> None:
    storages = [Storage(key, normal(size)) for key, size in (("1", 3), ("2", 4), ("3", 5))]
    momentum, weight, bias = [Tensor(storage, 0, (storage.numbers.size,), (1,)) for storage in storages]
    checkpoint = {"step": 3, "optimizer": {"state": [momentum]}, "model": OrderedDict(w=weight, b=bias)}
    path = write_legacy(tmp_path / "w.pth", checkpoint, storages)
    weights = _pickles.read_weights(path, "model")
    assert list(weights) == ["w", "b"]
    np.testing.assert_array_equal(weights["b"], storages[2].numbers)
    for entry in (None, "step", "no such entry"):
        with pytest.raises(pickle.UnpicklingError, match="more than a dict of tensors"):
            _pickles.read_weights(path, entry)


@pytest.mark.usefixtures("fake_torch")
def test_a_pickled_tensor_cannot_reach_beyond_its_storage(tmp_path: Path) -> None:
    storage = Storage("7", np.zeros(4, np.float32))
    path = write_legacy(tmp_path / "w.pth", {"a": Tensor(storage, 0, (2, 2), (4, 1))}, [storage])
    with pytest.raises(ValueError, match="strides"):
        _pickles.read_weights(path)


@pytest.mark.parametrize("call", [(os.mkdir, "executed"), (eval, "__import__('os').mkdir('executed')")])
def test_a_malicious_pickle_is_refused_and_executes_nothing(
    call: tuple[Callable[..., Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return call[0], (call[1],)

    monkeypatch.chdir(tmp_path)
    path = write_legacy(tmp_path / "w.pth", {"a": Bomb()}, [])
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        _pickles.read_weights(path)
    assert not Path("executed").exists()


def test_a_pickle_cannot_name_a_storage_of_python_objects(tmp_path: Path) -> None:
    class Reference(Pickler):
        def persistent_id(self, obj: object) -> object:
            return ("storage", "|O", "7", "cpu", 1, None) if obj == "here" else None

    path = write_legacy(tmp_path / "w.pth", {}, [])
    head = path.read_bytes().rpartition(pickle.dumps({}, protocol=2))[0]
    with path.open("wb") as file:
        file.write(head)
        Reference(file, protocol=2).dump({"a": "here"})
    with pytest.raises(pickle.UnpicklingError, match="unknown reference"):
        _pickles.read_weights(path)


def test_a_file_that_is_no_legacy_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zip.pth"
    path.write_bytes(pickle.dumps("a") + pickle.dumps("b"))
    with pytest.raises(pickle.UnpicklingError, match="not a legacy"):
        _pickles.read_weights(path)


# --- CTranslate2 -------------------------------------------------------------------------------------------


def write_ctranslate2(path: Path, variables: Mapping[str, Array], aliases: Mapping[str, str], version: int = 6) -> Path:
    types = {"<f4": 0, "|i1": 1, "<i2": 2, "<i4": 3, "<f2": 4}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", version), text("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        parts.append(text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
        parts.append(struct.pack("<BI", types[value.dtype.str], value.nbytes) + value.tobytes())
    parts.append(struct.pack("<I", len(aliases)))
    parts.extend(text(alias) + text(name) for alias, name in aliases.items())
    path.write_bytes(b"".join(parts))
    return path


def test_ctranslate2_variables_and_aliases_are_read_as_stored(tmp_path: Path) -> None:
    variables = {"a/weight": normal(2, 3).astype(np.float16), "heads": np.array(6, np.int16)}
    weights = _ctranslate2.read_weights(write_ctranslate2(tmp_path / "model.bin", variables, {"b": "a/weight"}))
    assert list(weights) == ["a/weight", "heads", "b"]
    assert weights["a/weight"].dtype == np.float16
    np.testing.assert_array_equal(weights["a/weight"], variables["a/weight"])
    assert int(weights["heads"]) == 6
    assert weights["b"] is weights["a/weight"]


def test_an_unknown_ctranslate2_format_is_refused_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format 99"):
        _ctranslate2.read_weights(write_ctranslate2(tmp_path / "model.bin", {}, {}, version=99))


def test_a_cut_ctranslate2_file_is_refused(tmp_path: Path) -> None:
    path = write_ctranslate2(tmp_path / "model.bin", {"a": normal(4)}, {})
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match="buffer"):
        _ctranslate2.read_weights(path)


# --- the graph builder -------------------------------------------------------------------------------------


def affine(weight: Array) -> Graph:
    graph = Graph("affine")
    x = graph.input("x", np.float32, ["batch", weight.shape[0]])
    y = graph.op("Add", graph.op("MatMul", x, weight), float32(1))
    graph.output("y", y, np.float32, ["batch", weight.shape[1]])
    return graph


def test_a_built_graph_computes_what_it_says(tmp_path: Path) -> None:
    weight, x = normal(3, 2), normal(5, 3)
    affine(weight).save(tmp_path / "m.onnx", {"note": "hello"})
    np.testing.assert_allclose(run(tmp_path / "m.onnx", x=x)[0], x @ weight + 1, rtol=1e-6)
    model = onnx.load(tmp_path / "m.onnx")
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", 3]
    assert [(p.key, p.value) for p in model.metadata_props] == [("note", "hello")]


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    weight = normal(3, 2)
    for name in ("a", "b"):
        affine(weight).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_small_equal_constants_are_stored_once_and_kept_apart_by_type() -> None:
    graph = Graph("constants")
    assert graph.constant(int64(0, 1)) == graph.constant(int64(0, 1))
    assert graph.constant(int64(0)) != graph.constant(np.array([0], np.float32).view(np.int32))
    with pytest.raises(ValueError, match="already"):
        [graph.constant(int64(1), "same") for _ in range(2)]


def test_contributed_operators_bring_their_operator_set() -> None:
    graph = Graph("gelu")
    x = graph.input("x", np.float32, ["batch"])
    graph.output("y", graph.op("QuickGelu", x, domain=CONTRIB), np.float32, ["batch"])
    assert [entry.domain for entry in graph.model().opset_import] == ["", CONTRIB]
    assert [entry.domain for entry in affine(normal(1, 1)).model().opset_import] == [""]


# --- recipes -----------------------------------------------------------------------------------------------


def test_labels_that_two_classes_share_become_their_wordnet_names(tmp_path: Path) -> None:
    names = [f"name {i}" for i in range(998)] + ["missile", "missile"]
    wordnet = {str(i): "other" for i in range(998)} | {"998": "missile", "999": "projectile, missile"}
    (tmp_path / "clean").write_text(json.dumps(names))
    (tmp_path / "wordnet").write_text(json.dumps(wordnet))
    labels = efficientnet_lite0.read_labels(tmp_path / "clean", tmp_path / "wordnet")
    assert labels[:998] == names[:998]
    assert labels[998:] == ["missile", "projectile"]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with random weights and a vocabulary of 50."""
    folder = tmp_path_factory.mktemp("minilm")
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings": (50, 384),
        "embeddings.position_embeddings": (16, 384),
    }
    shapes |= {"embeddings.token_type_embeddings": (2, 384), "embeddings.LayerNorm": (384,)}
    for i in range(6):
        layer = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{layer}.attention.{part}"] = (384, 384)
        shapes |= {f"{layer}.intermediate.dense": (1536, 384), f"{layer}.output.dense": (384, 1536)}
        shapes |= {f"{layer}.attention.output.LayerNorm": (384,), f"{layer}.output.LayerNorm": (384,)}
    weights = {f"{name}.weight": normal(*shape) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": normal(shape[0]) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors")
    padded = {"truncation": {"max_length": 128}, "padding": {"strategy": {"Fixed": 128}}, "model": {"é": 1}}
    (folder / "source.json").write_text(json.dumps(padded))
    sources = {"model.safetensors": folder / "model.safetensors", "tokenizer.json": folder / "source.json"}
    minilm_l6_v2.convert(sources, folder)
    (folder / "f16").mkdir()
    minilm_l6_v2_f16.convert(sources, folder / "f16")
    return folder


def test_minilm_of_16_bits_says_what_the_exact_one_says(minilm: Path) -> None:
    ids = np.random.default_rng(3).integers(0, 50, (2, 12))
    mask = np.ones_like(ids)
    mask[0, 5:] = 0
    exact, _ = run(minilm / "model.onnx", input_ids=ids, attention_mask=mask)
    half, hidden = run(minilm / "f16" / "model.onnx", input_ids=ids, attention_mask=mask)
    assert half.dtype == hidden.dtype == np.float32
    assert np.sum(exact * half, axis=1).min() > 0.999
    assert (minilm / "f16" / "model.onnx").stat().st_size < 0.55 * (minilm / "model.onnx").stat().st_size


def test_minilm_embeds_a_text_alike_alone_and_padded_beside_a_longer_one(minilm: Path) -> None:
    ids = RANDOM.integers(0, 50, (2, 12))
    mask = np.ones_like(ids)
    mask[0, 5:] = 0
    embedding, hidden = run(minilm / "model.onnx", input_ids=ids, attention_mask=mask)
    alone = run(minilm / "model.onnx", input_ids=ids[:1, :5], attention_mask=mask[:1, :5])
    np.testing.assert_allclose(embedding[0], alone[0][0], atol=1e-6)
    np.testing.assert_allclose(hidden[0, :5], alone[1][0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)


def test_minilm_embeds_a_text_without_tokens_as_zeros(minilm: Path) -> None:
    none = np.zeros((1, 4), np.int64)
    embedding, _ = run(minilm / "model.onnx", input_ids=none, attention_mask=none)
    np.testing.assert_array_equal(embedding, np.zeros((1, 384), np.float32))


def test_minilm_leaves_padding_and_truncation_to_the_caller(minilm: Path) -> None:
    tokenizer = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer == {"truncation": None, "padding": None, "model": {"é": 1}}


def ready_model(path: Path, nodes: list[onnx.NodeProto], output: list[int | str], **metadata: str) -> None:
    """An ONNX file with the names that Paddle's converter gives and one weight, `w` [1, 18710]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["DynamicDimension.0", 3, 48, "DynamicDimension.1"])
    y = helper.make_tensor_value_info("fetch_name_0", TensorProto.FLOAT, output)
    weight = numpy_helper.from_array(normal(1, 18710, scale=1), "w")
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=10)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)


def test_ocr_detection_keeps_its_numbers_under_clear_names(tmp_path: Path) -> None:
    mean = helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1)
    source = tmp_path / ppocr_v6_det.SOURCE
    ready_model(source, [mean, helper.make_node("Sigmoid", ["m"], ["fetch_name_0"])], ["a", "b", "c", "d"])
    ppocr_v6_det.convert({source.name: source}, tmp_path)
    x = normal(2, 3, 48, 64)
    np.testing.assert_array_equal(run(tmp_path / "model.onnx", image=x)[0], run(source, x=x)[0])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {"image": ["batch", 3, "height", "width"], "text": ["batch", 1, "height", "width"]}


def test_ocr_recognition_returns_the_best_class_of_each_step(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["m"], ["u"], axes=[2]),
        helper.make_node("MatMul", ["u", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["fetch_name_0"], axis=2),
    ]
    alphabet = [chr(0x4E00 + i) for i in range(18708)]
    source = tmp_path / ppocr_v6_rec.SOURCE
    ready_model(source, nodes, ["a", "b", 18710], character="\n".join(alphabet))
    ppocr_v6_rec.convert({source.name: source}, tmp_path)
    x = normal(2, 3, 48, 16, scale=10)
    indices, scores = run(tmp_path / "model.onnx", image=x)
    (probabilities,) = run(source, x=x)
    np.testing.assert_array_equal(indices, probabilities.argmax(axis=2))
    np.testing.assert_array_equal(scores, probabilities.max(axis=2))
    characters = (tmp_path / "characters.txt").read_text(encoding="utf-8").splitlines()
    assert characters == ["", *alphabet, " "]


def test_centerface_takes_pictures_of_any_size_in_8_bits(tmp_path: Path) -> None:
    """The source is fixed at ten of 32 x 32, and lists its weights as inputs."""
    size = [10, 3, 32, 32]
    weights = {name: normal(channels, 3, 1, 1, scale=1) for name, (_, channels) in centerface.HEADS.items()}
    inputs = [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, size)]
    inputs += [helper.make_tensor_value_info(f"w{name}", TensorProto.FLOAT, w.shape) for name, w in weights.items()]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [10, w.shape[0], 8, 8]) for name, w in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["input.1", f"w{name}"], [name], kernel_shape=[1, 1], strides=[4, 4])
        for name in weights
    ]
    constants = [numpy_helper.from_array(weight, f"w{name}") for name, weight in weights.items()]
    constants.append(numpy_helper.from_array(np.int64(7), "num_batches_tracked"))
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    source = tmp_path / centerface.SOURCE
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4), source)
    centerface.convert({source.name: source}, tmp_path)
    picture = RANDOM.integers(0, 256, (2, 3, 64, 96), np.uint8)
    for got, weight in zip(run(tmp_path / "model.onnx", image=picture), weights.values(), strict=True):
        wanted = np.einsum("bchw,oc->bohw", picture[:, :, ::4, ::4].astype(np.float32), weight[:, :, 0, 0])
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-2)
    made = onnx.load(tmp_path / "model.onnx").graph
    assert [value.name for value in made.input] == ["image"]
    assert [value.name for value in made.output] == ["scores", "sizes", "offsets", "landmarks"]
    assert "num_batches_tracked" not in {weight.name for weight in made.initializer}
    assert (tmp_path / "labels.txt").read_text(encoding="utf-8") == "face\n"


# --- Silero ------------------------------------------------------------------------------------------------

FRAME, CONTEXT = silero_vad.FRAME, silero_vad.CONTEXT


@pytest.fixture(scope="module")
def silero(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in Silero's shapes."""
    kernels = [(128, 129), (64, 128), (64, 64), (128, 64)]
    weights = {"basis": normal(256, 258), "head": normal(128, 1, scale=1), "head_bias": normal(1)}
    weights |= {"input": normal(1, 512, 128), "recurrence": normal(1, 512, 128), "bias": normal(1, 1024)}
    for layer, (outputs, inputs) in enumerate(kernels):
        weights |= {f"kernel_{layer}": normal(outputs, inputs, 3), f"bias_{layer}": normal(outputs)}
    path = tmp_path_factory.mktemp("silero") / "model.onnx"
    silero_vad.build(weights).save(path)
    return path


@pytest.mark.parametrize(("steps", "stride"), [(4, 1), (4, 2), (2, 2), (1, 1), (5, 2)])
def test_a_short_convolution_is_a_product(tmp_path: Path, steps: int, stride: int) -> None:
    kernel, bias = normal(7, 5, 3), normal(7)
    graph = Graph("conv")
    value = graph.input("x", np.float32, ["n", 5, steps])
    graph.output("y", graph.op("Conv", value, kernel, bias, pads=[1, 1], strides=[stride]), np.float32, ["n", 7, "t"])
    graph.save(tmp_path / "model.onnx")
    x = normal(3, 5, steps)
    (wanted,) = run(tmp_path / "model.onnx", x=x)
    matrix, repeated, after = silero_vad.as_product(kernel, bias, steps, stride)
    got = (x.transpose(0, 2, 1).reshape(3, -1) @ matrix + repeated).reshape(3, after, 7).transpose(0, 2, 1)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_silero_goes_on_where_a_block_ended(silero: Path) -> None:
    samples, nothing = normal(2, CONTEXT + 5 * FRAME, scale=1), np.zeros((2, 2, 128), np.float32)
    whole, last = run(silero, samples=samples, state=nothing)
    assert whole.shape == (2, 5)
    first, state = run(silero, samples=samples[:, : CONTEXT + 3 * FRAME], state=nothing)
    rest, end = run(silero, samples=samples[:, 3 * FRAME :], state=state)
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), whole, atol=1e-6)
    np.testing.assert_allclose(end, last, atol=1e-6)
    assert np.abs(run(silero, samples=samples[:, 3 * FRAME :], state=nothing)[0] - rest).max() > 1e-3


def test_silero_keeps_recordings_apart(silero: Path) -> None:
    samples, state = normal(3, CONTEXT + 4 * FRAME, scale=1), normal(2, 3, 128, scale=1)
    together = run(silero, samples=samples, state=state)
    for row in range(3):
        speech, after = run(silero, samples=samples[[row]], state=state[:, [row]])
        np.testing.assert_allclose(speech[0], together[0][row], atol=1e-6)
        np.testing.assert_allclose(after[:, 0], together[1][:, row], atol=1e-6)


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + FRAME // 2, CONTEXT + FRAME + 1])
def test_silero_refuses_what_is_no_whole_frames(silero: Path, length: int) -> None:
    """Also where the rows together would be: one must not lend another its samples."""
    with pytest.raises(Exception, match="Reshape"):
        run(silero, samples=normal(2, length), state=np.zeros((2, 2, 128), np.float32))


# --- Resemblyzer -------------------------------------------------------------------------------------------


def voice_weights() -> dict[str, Array]:
    """Random weights in Resemblyzer's shapes, in PyTorch's order."""
    weights = {"linear.weight": normal(256, 256), "linear.bias": normal(256)}
    for layer in range(3):
        weights |= {f"lstm.weight_ih_l{layer}": normal(1024, 256 if layer else 40, scale=0.2)}
        weights |= {f"lstm.weight_hh_l{layer}": normal(1024, 256)}
        weights |= {f"lstm.{bias}_l{layer}": normal(1024, scale=0.2) for bias in ("bias_ih", "bias_hh")}
    return weights


def voice_by_the_book(mels: Array, weights: Mapping[str, Array]) -> Array:
    """PyTorch's equations of an LSTM (gates: input, forget, cell, output), then the projection, ReLU and the norm."""
    steps = mels.astype(np.float64)
    for layer in range(3):
        entering, recurrent, bias, other = (
            weights[f"lstm.{part}_l{layer}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        hidden = cell = np.zeros((len(mels), 256))
        found = []
        for step in np.moveaxis(steps, 1, 0):
            gates = np.split(step @ entering.T + bias + hidden @ recurrent.T + other, 4, axis=1)
            enter, forget, leave = (1 / (1 + np.exp(-gates[gate])) for gate in (0, 1, 3))
            cell = forget * cell + enter * np.tanh(gates[2])
            hidden = leave * np.tanh(cell)
            found.append(hidden)
        steps = np.stack(found, axis=1)
    projected = np.maximum(hidden @ weights["linear.weight"].T + weights["linear.bias"], 0)
    embedding: Array = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    return embedding


def test_resemblyzer_computes_pytorchs_lstm_and_keeps_voices_apart(tmp_path: Path) -> None:
    weights, mels = voice_weights(), np.abs(normal(3, 20, 40, scale=1))
    resemblyzer.build(weights).save(tmp_path / "model.onnx")
    (together,) = run(tmp_path / "model.onnx", mels=mels)
    np.testing.assert_allclose(together, voice_by_the_book(mels, weights), atol=1e-5)
    for row in range(3):
        np.testing.assert_allclose(run(tmp_path / "model.onnx", mels=mels[[row]])[0][0], together[row], atol=1e-6)


# --- Whisper -----------------------------------------------------------------------------------------------

WIDTH, VOCABULARY, MELS = 128, 40, 8


def whisper_weights() -> dict[str, Array]:
    """Random weights: width 128, two heads, one layer on each side."""
    weights = {
        "encoder/num_heads": np.array(2, np.int16),
        "encoder/conv1/weight": normal(WIDTH, MELS, 3),
        "encoder/conv2/weight": normal(WIDTH, WIDTH, 3),
        "encoder/position_encodings/encodings": normal(20, WIDTH),
        "decoder/position_encodings/encodings": normal(10, WIDTH, scale=1),
        "decoder/embeddings/weight": normal(VOCABULARY, WIDTH, scale=1),
    }
    norms = ["encoder/layer_norm", "decoder/layer_norm", "decoder/layer_0/attention/layer_norm"]
    linears = {f"decoder/layer_0/attention/linear_{i}": (outputs * WIDTH, WIDTH) for i, outputs in enumerate((1, 2, 1))}
    for layer in ("encoder/layer_0", "decoder/layer_0"):
        norms += [f"{layer}/self_attention/layer_norm", f"{layer}/ffn/layer_norm"]
        linears |= {f"{layer}/self_attention/linear_0": (3 * WIDTH, WIDTH)}
        linears |= {f"{layer}/self_attention/linear_1": (WIDTH, WIDTH)}
        linears |= {f"{layer}/ffn/linear_0": (4 * WIDTH, WIDTH), f"{layer}/ffn/linear_1": (WIDTH, 4 * WIDTH)}
    for name in norms:
        weights |= {f"{name}/gamma": normal(WIDTH, scale=1), f"{name}/beta": normal(WIDTH)}
    for name, shape in linears.items():
        weights |= {f"{name}/weight": normal(*shape), f"{name}/bias": normal(shape[0])}
    weights |= {f"encoder/conv{i}/bias": normal(WIDTH) for i in (1, 2)}
    return {name: value.astype(np.float16) if value.ndim else value for name, value in weights.items()}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    sources = {name: folder / f"source {name}" for name in ("model.bin", "config.json", "tokenizer.json")}
    write_ctranslate2(
        sources["model.bin"], whisper_weights(), {"decoder/projection/weight": "decoder/embeddings/weight"}
    )
    config = {"suppress_ids": [1, 2], "suppress_ids_begin": [3], "lang_ids": [], "alignment_heads": [[0, 1]]}
    sources["config.json"].write_text(json.dumps(config))
    added = [{"id": 20 + i, "content": text} for i, text in enumerate(_whisper_files.SPECIAL_TOKENS.values())]
    sources["tokenizer.json"].write_text(json.dumps({"added_tokens": added}))
    whisper_tiny_en.convert(sources, folder)
    return folder


def decode(
    whisper: Path,
    ids: Array,
    beam: Array,
    cross: list[Array],
    past: list[Array],
    name: str = "decoder",
    **changes: Array,
) -> list[Array]:
    inputs = {
        "ids": ids,
        "beam": beam,
        "cross_k_0": cross[0][0],
        "cross_v_0": cross[1][0],
        "past_k": past[0],
        "past_v": past[1],
    }
    inputs |= {"suppress": np.zeros((1, VOCABULARY), np.float32), "probe": int64(24)}
    return run(whisper / f"{name}.onnx", **(inputs | changes))


def nothing_past(rows: int) -> list[Array]:
    return [np.zeros((1, rows, 2, 0, 64), np.float32)] * 2


def test_whisper_hands_over_keys_already_transposed(whisper: Path) -> None:
    keys, values = run(whisper / "encoder.onnx", mel=normal(2, MELS, 30, scale=1))
    assert keys.shape == (1, 2, 2, 64, 15)
    assert values.shape == (1, 2, 2, 15, 64)


def test_whisper_scores_a_prompt_alike_at_once_and_token_by_token(whisper: Path) -> None:
    cross = run(whisper / "encoder.onnx", mel=normal(2, MELS, 30, scale=1))
    ids, rows = RANDOM.integers(0, VOCABULARY, (2, 4)), int64(0, 1)
    at_once = decode(whisper, ids, rows, cross, nothing_past(2))
    past = nothing_past(2)
    for i in range(4):
        step = decode(whisper, ids[:, i : i + 1], rows, cross, past)
        past = step[3:]
    for expected, got in zip(at_once[:5], step[:5], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(step[5][:, :, 0], at_once[5][:, :, 3], atol=1e-6)


def test_whisper_beams_share_their_items_keys_and_reorder_their_past(whisper: Path) -> None:
    cross = run(whisper / "encoder.onnx", mel=normal(2, MELS, 30, scale=1))
    first, then = RANDOM.integers(0, VOCABULARY, (4, 1)), RANDOM.integers(0, VOCABULARY, (4, 1))
    beam = int64(1, 0, 3, 3)
    past = decode(whisper, first, int64(0, 0, 1, 1), cross, nothing_past(2))[3:]
    together = decode(whisper, then, beam, cross, past)
    for row in range(4):
        own = [part[:, row // 2 : row // 2 + 1] for part in cross]
        text = np.stack([first[beam[row]], then[row]], axis=1)
        alone = decode(whisper, text, int64(0), own, nothing_past(1))
        np.testing.assert_array_equal(together[1][row], alone[1][0])
        np.testing.assert_allclose(together[0][row], alone[0][0], atol=1e-5)


def test_whisper_suppresses_by_row_and_reports_the_probed_tokens(whisper: Path) -> None:
    cross = run(whisper / "encoder.onnx", mel=normal(2, MELS, 30, scale=1))
    ids, rows, none = RANDOM.integers(0, VOCABULARY, (2, 1)), int64(0, 1), nothing_past(2)
    _, tokens, *_ = decode(whisper, ids, rows, cross, none)
    suppress = np.zeros((2, VOCABULARY), np.float32)
    suppress[0, tokens[0, 0]] = -1e9
    scores, now, probed, *_ = decode(whisper, ids, rows, cross, none, suppress=suppress, probe=tokens[1, :3])
    np.testing.assert_array_equal(now[0, :11], tokens[0, 1:])
    np.testing.assert_array_equal(now[1], tokens[1])
    np.testing.assert_array_equal(probed[1], scores[1, :3])


def test_whisper_stores_its_embeddings_once(whisper: Path) -> None:
    model = onnx.load(whisper / "decoder.onnx")
    shapes = [tuple(tensor.dims) for tensor in model.graph.initializer]
    assert shapes.count((VOCABULARY, WIDTH)) + shapes.count((WIDTH, VOCABULARY)) == 1


def test_whisper_tells_where_its_aligned_heads_look(whisper: Path) -> None:
    """The second of two heads; five beams of two items are the queries of their items."""
    cross = run(whisper / "encoder.onnx", mel=normal(2, MELS, 30, scale=1))
    looks = decode(whisper, RANDOM.integers(0, VOCABULARY, (10, 1)), int64(*[0] * 5, *[1] * 5), cross, nothing_past(2))[
        5
    ]
    assert looks.shape == (2, 1, 5, 15)
    np.testing.assert_allclose(looks.sum(axis=-1), 1, atol=1e-5)


def test_whisper_in_8_bits_is_nearly_the_same_and_rows_do_not_depend_on_others(whisper: Path) -> None:
    mel = normal(1, MELS, 30, scale=1)
    cross, small = run(whisper / "encoder.onnx", mel=mel), run(whisper / "encoder.int8.onnx", mel=mel)
    for exact, near in zip(cross, small, strict=True):
        assert np.abs(near - exact).mean() < 0.05 * np.abs(exact).mean()
    ids, rows, past = RANDOM.integers(0, VOCABULARY, (5, 3)), int64(0, 0, 0, 0, 0), nothing_past(1)
    scores = decode(whisper, ids, rows, cross, past)[0]
    rough = decode(whisper, ids, rows, cross, past, "decoder.int8")[0]
    np.testing.assert_allclose(rough, scores, atol=0.1 * float(np.abs(scores).max()))
    alone = decode(whisper, ids[2:3], int64(0), cross, past, "decoder.int8")[0]
    np.testing.assert_allclose(alone[0], rough[2], atol=1e-4)


def test_whisper_knows_languages_where_its_vocabulary_has_them(tmp_path: Path) -> None:
    """Withdrawn codes are replaced; a model that knows English only lists none."""
    added = {text: 50257 + i for i, text in enumerate(("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|jw|>"))}
    assert _whisper_files._languages(added, [50260, 50259]) == {"en": 50259, "jv": 50260}


def test_whisper_reads_weights_in_parts(tmp_path: Path) -> None:
    write_ctranslate2(tmp_path / "whole", {"a": normal(3, 4)}, {"b": "a"})
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "1").write_bytes(content[:20])
    (tmp_path / "2").write_bytes(content[20:])
    read = _ctranslate2.read_weights(tmp_path / "1", tmp_path / "2")
    np.testing.assert_array_equal(read["b"], _ctranslate2.read_weights(tmp_path / "whole")["a"])


def test_whisper_writes_what_a_search_needs_to_know(whisper: Path) -> None:
    facts = json.loads((whisper / "whisper.json").read_text(encoding="utf-8"))
    assert (facts["layers"], facts["heads"], facts["head_width"], facts["mels"]) == (1, 2, 64, MELS)
    assert (facts["max_frames"], facts["max_tokens"], facts["vocabulary"]) == (40, 10, VOCABULARY)
    assert (facts["suppress"], facts["suppress_at_begin"]) == ([1, 2], [3])
    assert facts["tokens"]["end_of_text"] == 20
    assert facts["tokens"]["first_timestamp"] == facts["tokens"]["no_timestamps"] + 1


def test_products_of_eight_bits_share_no_weights_once_hibaris_are_their_own(tmp_path: Path) -> None:
    """Three products, two of which have no name, of the same weights and zero point."""
    weights = {"w": RANDOM.integers(-127, 128, (8, 4)).astype(np.int8), "zero": np.int8(3)}
    nodes = [helper.make_node("MatMulInteger", ["x", "w", "", "zero"], [f"y{n}"]) for n in range(3)]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 8])],
        [helper.make_tensor_value_info(f"y{n}", TensorProto.INT32, ["n", 4]) for n in range(3)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    hibari.unshare(graph)
    used = [name for node in graph.node for name in node.input if name not in ("", "x")]
    assert len(used) == len(set(used)) == len(graph.initializer) == 6
    model = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    x = RANDOM.integers(0, 256, (5, 8)).astype(np.uint8)
    sessions = Sessions(Runtime(), threads=1)
    for sums in sessions.open(model)._session.run(None, {"x": x}):
        assert np.array_equal(sums, x.astype(np.int32) @ (weights["w"].astype(np.int32) - 3))
    assert not sessions.note
