"""What an ONNX file says of itself, and every reason why one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ortmesh.serving.batch_axis import ALONE, Dims, Place, infer
from ortmesh.serving.faults import GraphRefused
from ortmesh.serving.graph import inspect, try_session

Edit = Callable[[onnx.ModelProto], None]
Shape = list[int | str | None] | None


def value(name: str, shape: Shape = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(inputs: list[onnx.ValueInfoProto] | None = None) -> onnx.ModelProto:
    """y = x · w with w [4, 2]; x [batch, 4] unless `inputs` says otherwise."""
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "test",
        inputs if inputs is not None else [value("x", ["batch", 4])],
        [value("y", ["batch", 2])],
        [weight],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="cat", producer_version="2"
    )


def saved(folder: Path, made: onnx.ModelProto, name: str = "model.onnx") -> Path:
    (folder / name).write_bytes(made.SerializeToString())
    return folder / name


def saved_in_two(folder: Path) -> Path:
    """With its weights in w.bin."""
    onnx.save(model(), folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return folder / "model.onnx"


def test_graph_says_what_it_takes_gives_and_is_made_of(tmp_path: Path) -> None:
    graph = inspect(saved(tmp_path, model()))
    assert [(t.name, t.datatype, t.shape, t.place) for t in graph.inputs] == [("x", "FP32", (-1, 4), Place(0))]
    assert [(t.name, t.datatype, t.shape, t.place) for t in graph.outputs] == [("y", "FP32", (-1, 2), Place(0))]
    assert (graph.opset, graph.producer, graph.precision, graph.sidecars) == (17, "cat 2", "f32", ())


def test_constant_that_is_listed_as_an_input_is_none(tmp_path: Path) -> None:
    """Files of ONNX's first versions list their weights among the inputs."""
    graph = inspect(saved(tmp_path, model([value("x", ["batch", 4]), value("w", [4, 2])])))
    assert [tensor.name for tensor in graph.inputs] == ["x"]


def test_weights_in_files_beside_it_are_named_and_not_read(tmp_path: Path) -> None:
    path = saved_in_two(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"\xff" * 32)
    assert inspect(path).sidecars == ("w.bin",)


def test_weights_of_a_branch_are_found_too(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones(4, np.float32), "inner")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="inner.bin")
    branch = helper.make_graph([helper.make_node("Identity", ["inner"], ["z"])], "b", [], [value("z")], [weight])
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    inputs = [value("x", [], TensorProto.BOOL)]
    made = helper.make_model(helper.make_graph(nodes, "test", inputs, [value("y", [4])]))
    with pytest.raises(GraphRefused, match=r"inner\.bin, which is not beside it"):
        inspect(saved(tmp_path, made))


def no_outputs(made: onnx.ModelProto) -> None:
    del made.graph.output[:]


def sequence_input(made: onnx.ModelProto) -> None:
    made.graph.input.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))


def map_output(made: onnx.ModelProto) -> None:
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    made.graph.output.append(helper.make_value_info("m", kind))


def optional_input(made: onnx.ModelProto) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    made.graph.input.append(helper.make_value_info("o", kind))


def typed(kind: int) -> Edit:
    return lambda made: made.graph.input.append(value("t", [1], kind))


def location(where: str) -> Edit:
    def edit(made: onnx.ModelProto) -> None:
        made.graph.initializer[0].data_location = TensorProto.EXTERNAL
        made.graph.initializer[0].external_data.add(key="location", value=where)

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda made: made.graph.ClearField("input"), "no inputs"),
        (no_outputs, "no outputs"),
        (lambda made: made.graph.input.append(made.graph.input[0]), "several inputs of the same name: x"),
        (lambda made: made.graph.output.append(made.graph.output[0]), "several outputs of the same name: y"),
        (sequence_input, "input s is a sequence"),
        (map_output, "output m is a map"),
        (optional_input, "input o is a optional"),
        (lambda made: made.graph.input.append(onnx.ValueInfoProto(name="v")), "input v is a value without a type"),
        (typed(TensorProto.INT4), "input t is of type INT4"),
        (typed(TensorProto.UINT4), "input t is of type UINT4"),
        (typed(TensorProto.FLOAT8E4M3FN), "input t is of type FLOAT8E4M3FN"),
        (typed(TensorProto.COMPLEX64), "input t is of type COMPLEX64"),
        (lambda made: made.graph.node.add(op_type="Purr", domain="cats"), r"does not have: cats\.Purr"),
        (location("/etc/passwd"), "'/etc/passwd', outside"),
        (location("../w.bin"), r"'\.\./w\.bin', outside"),
        (location(""), "'', outside"),
        (location("w.bin"), r"w\.bin, which is not beside it"),
    ],
)
def test_graph_that_cannot_be_served_is_refused_with_the_reason(edit: Edit, reason: str, tmp_path: Path) -> None:
    made = model()
    edit(made)
    with pytest.raises(GraphRefused, match=reason):
        inspect(saved(tmp_path, made))


def test_weights_that_were_cut_short_are_damaged(tmp_path: Path) -> None:
    path = saved_in_two(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"short")
    with pytest.raises(GraphRefused, match=r"w\.bin, which is shorter"):
        inspect(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no operators"),
        (b"GIF89a not a model at all", "no ONNX file"),
        (b"\x20\0\0\0ORTM\0\0", "ONNX Runtime's own format"),
    ],
)
def test_file_that_is_no_onnx_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(GraphRefused, match=reason):
        inspect(tmp_path / "model.onnx")


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, model())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GraphRefused, match=r"model\.onnx is no ONNX file, or is damaged"):
        inspect(path)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphRefused, match="is no file"):
        inspect(tmp_path / "none.onnx")


def test_function_of_the_file_itself_needs_no_library(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    function = helper.make_function("mine", "Twice", ["a"], ["b"], body, opsets[:1])
    nodes = [helper.make_node("Twice", ["x"], ["y"], domain="mine")]
    graph = helper.make_graph(nodes, "test", [value("x", ["n"])], [value("y", ["n"])])
    path = saved(tmp_path, helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8))
    assert [tensor.name for tensor in inspect(path).inputs] == ["x"]
    try_session(path)


def test_operator_that_onnx_does_not_have_is_found_by_loading(tmp_path: Path) -> None:
    made = model()
    made.graph.node[0].op_type = "Purr"
    path = saved(tmp_path, made)
    inspect(path)
    with pytest.raises(GraphRefused, match=r"does not load model\.onnx: .*Purr"):
        try_session(path)


@pytest.mark.parametrize(
    ("inputs", "outputs", "axes", "shared"),
    [
        ({"x": ("batch", 4)}, {"y": ("batch", 2)}, {"x": 0, "y": 0}, ()),
        ({"x": (None, 4)}, {"y": (None,)}, {"x": 0, "y": 0}, ()),
        ({"ids": ("n", "t"), "mask": ("n", "t")}, {"y": ("n", 384)}, {"ids": 0, "mask": 0, "y": 0}, ()),
        (
            {"x": ("batch", 576), "state": (2, "batch", 128), "sr": ()},
            {"y": ("batch", 1)},
            {"x": 0, "state": 1, "sr": None, "y": 0},
            ("sr",),
        ),
        ({"x": ("frames", "batch")}, {"y": ("batch",)}, {"x": 1, "y": 0}, ()),
        ({"x": ("items", 3), "heat": (1,)}, {"y": ("items",)}, {"x": 0, "heat": None, "y": 0}, ("heat",)),
        ({"x": ("unk__5", 4), "m": ("unk__6", 4)}, {"y": ("unk__7", 2)}, {"x": 0, "m": 0, "y": 0}, ()),
        ({"x": ("batch", 4)}, {"y": ("boxes", 6)}, {"x": 0, "y": None}, ()),
        ({"x": ("batch", 4)}, {"y": ("Gathery_dim_0", 6)}, {"x": 0, "y": 0}, ()),
        ({"x": ("batch", "batch")}, {"y": ("batch",)}, {"x": None, "y": 0}, ()),
    ],
)
def test_batch_axis_is_inferred(
    inputs: dict[str, Dims], outputs: dict[str, Dims], axes: dict[str, int | None], shared: tuple[str, ...]
) -> None:
    places = infer(inputs, outputs)
    assert {name: place.batch_axis for name, place in places.items()} == axes
    assert tuple(name for name, place in places.items() if place.shared) == shared


@pytest.mark.parametrize(
    "inputs",
    [{"x": (1, 4)}, {"x": ("left", 4), "y": ("right", 4)}, {"x": None}, {"x": ("batch", 4), "y": None}, {"x": ()}],
)
def test_model_of_which_nothing_can_be_told_runs_its_items_alone(inputs: dict[str, Dims | None]) -> None:
    assert set(infer(inputs, {"z": ("batch",)}).values()) == {ALONE}
