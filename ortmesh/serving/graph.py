"""Graph: what an ONNX file says of itself, and why a file can't be served. Stage: store.

Weights that lie in other files are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ortmesh.serving.batch_axis import Dims, Place, infer
from ortmesh.serving.faults import DriverMissing, GraphRefused
from ortmesh.serving.tensors import datatype_of_onnx

MAX_FILE_BYTES = 2**31 - 1
"""What a protobuf message can hold; larger models keep their weights in other files."""
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
"""Sets of operators that ONNX Runtime brings along."""
PRECISIONS: Mapping[int, str] = {
    TensorProto.FLOAT: "f32",
    TensorProto.DOUBLE: "f64",
    TensorProto.FLOAT16: "f16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
}


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output."""

    name: str
    datatype: str
    """Its type by the Open Inference Protocol's name, e.g. `FP32`."""
    shape: tuple[int, ...]
    """-1 where the size may vary; empty also where the graph does not say how many dimensions there are."""
    place: Place
    """How it seems to take part in batching."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What a file holds."""

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    opset: int
    """The version of ONNX's own operators."""
    producer: str
    """What wrote it, e.g. `pytorch 2.6.0`; may be empty."""
    precision: str
    """The type of most of its weights, e.g. `f32`."""
    sidecars: tuple[str, ...]
    """Files beside it that hold weights, as paths from its folder."""
    operators: frozenset[str]
    """The operators that it has, by their names without their sets'."""


def inspect(path: Path) -> Graph:
    """Reads an ONNX file. GraphRefused when it can't be served, as far as can be told without running it."""
    model = _read(path)
    _check_operators(model)
    sidecars = _sidecars(model, path.parent)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in constants]
    outputs = list(model.graph.output)
    _check_names(inputs, "input")
    _check_names(outputs, "output")
    places = infer({info.name: _dims(info) for info in inputs}, {info.name: _dims(info) for info in outputs})
    return Graph(
        inputs=tuple(_tensor(info, places, "input") for info in inputs),
        outputs=tuple(_tensor(info, places, "output") for info in outputs),
        opset=max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        precision=_precision(model),
        sidecars=sidecars,
        operators=frozenset(node.op_type for node in _all_nodes(model)),
    )


def try_session(path: Path) -> None:
    """Loads the file as a service would. GraphRefused with ONNX Runtime's reason."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DriverMissing("ONNX Runtime is not installed: pip install 'ortmesh[cpu]' or 'ortmesh[gpu]'") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no public base
        raise GraphRefused(f"ONNX Runtime {onnxruntime.__version__} does not load {path.name}: {error}") from error


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise GraphRefused(f"{path} is no file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise GraphRefused(f"{path.name} is over 2 GiB: save its weights in a file beside it (external data)")
    with path.open("rb") as file:
        if file.read(8)[4:] == b"ORTM":
            raise GraphRefused(f"{path.name} is in ONNX Runtime's own format: save it as ONNX")
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise GraphRefused(f"{path.name} is no ONNX file, or is damaged: {error}") from error
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise GraphRefused(f"{path.name} is no ONNX file: it has no operators")
    return model


def _check_operators(model: onnx.ModelProto) -> None:
    """Operators of sets that only a custom library knows."""
    own = {(function.domain, function.name) for function in model.functions}
    foreign = Counter(
        f"{node.domain}.{node.op_type}"
        for node in _all_nodes(model)
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in own
    )
    if foreign:
        raise GraphRefused(f"it needs operators that ONNX Runtime does not have: {', '.join(sorted(foreign))}")


def _check_names(tensors: Sequence[onnx.ValueInfoProto], kind: str) -> None:
    if not tensors:
        raise GraphRefused(f"the graph has no {kind}s")
    twice = [name for name, count in Counter(info.name for info in tensors).items() if count > 1]
    if twice:
        raise GraphRefused(f"the graph has several {kind}s of the same name: {', '.join(twice)}")


def _tensor(info: onnx.ValueInfoProto, places: Mapping[str, Place], kind: str) -> GraphTensor:
    kind_of_value = info.type.WhichOneof("value")
    if kind_of_value != "tensor_type":
        what = (kind_of_value or "value without a type").removesuffix("_type")
        raise GraphRefused(f"{kind} {info.name} is a {what}: only tensors can be sent over the wire")
    element = info.type.tensor_type.elem_type
    try:
        datatype = datatype_of_onnx(element)
    except ValueError:
        name = TensorProto.DataType.Name(element) if element in TensorProto.DataType.values() else str(element)
        raise GraphRefused(f"{kind} {info.name} is of type {name}, which cannot be sent over the wire") from None
    shape = tuple(size if isinstance(size, int) else -1 for size in _dims(info) or ())
    return GraphTensor(info.name, datatype, shape, places[info.name])


def _dims(info: onnx.ValueInfoProto) -> Dims | None:
    if not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0 else dim.dim_param or None
        for dim in info.type.tensor_type.shape.dim
    )


def _sidecars(model: onnx.ModelProto, folder: Path) -> tuple[str, ...]:
    """The files that weights lie in, which must be there and stay inside the model's folder."""
    needed: dict[str, int] = {}
    for tensor in _all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            facts = {entry.key: entry.value for entry in tensor.external_data}
            name = _inside(facts.get("location", ""), tensor.name)
            end = _end(facts, tensor.name)
            needed[name] = max(needed.get(name, 0), end)
    for name, size in needed.items():
        if not (folder / name).is_file():
            raise GraphRefused(f"its weights lie in {name}, which is not beside it")
        if (folder / name).stat().st_size < size:
            raise GraphRefused(f"its weights lie in {name}, which is shorter than it should be: damaged")
    return tuple(sorted(needed))


def _end(facts: Mapping[str, str], tensor: str) -> int:
    """Where a tensor's bytes end in their file."""
    try:
        return int(facts.get("offset", "0")) + int(facts.get("length", "0"))
    except ValueError:
        raise GraphRefused(f"where the weights {tensor} lie is no number: damaged") from None


def _inside(location: str, tensor: str) -> str:
    path = PurePosixPath(location)
    if not location or path.is_absolute() or ".." in path.parts:
        raise GraphRefused(f"the weights {tensor} lie in {location!r}, outside of the model's folder")
    return str(path)


def _precision(model: onnx.ModelProto) -> str:
    sizes: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        elements = 1
        for size in tensor.dims:
            elements *= size
        sizes[PRECISIONS.get(tensor.data_type, "")] += elements
    del sizes[""]
    return sizes.most_common(1)[0][0] if sizes else "f32"


def _all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies of its branches and loops."""
    yield model.graph
    yield from _bodies(model.graph.node)
    for function in model.functions:
        yield from _bodies(function.node)


def _bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            yield graph
            yield from _bodies(graph.node)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _all_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _all_nodes(model):
        for attribute in node.attribute:
            yield from [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
