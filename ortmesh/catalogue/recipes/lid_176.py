"""lid.176, fastText's identifier of 176 languages, from its quantized file.

Method: Joulin et al., "Bag of Tricks for Efficient Text Classification" (arXiv:1607.01759) and "FastText.zip"
(arXiv:1612.03651). Weights: fasttext.cc/docs/en/language-identification.html.
"""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto

from ortmesh.catalogue.recipes._fasttext import HIERARCHICAL_SOFTMAX, SUPERVISED, FastText, read_model
from ortmesh.catalogue.recipes._graph import Array, Graph, float32, int64
from ortmesh.catalogue.recipes._languages import BCP_47, NAMES

OUTPUTS: tuple[str, ...] = ("model.onnx", "labels.txt", "names.txt", "ngrams.json")

SOURCE = "lid.176.ftz"
LOG_EPSILON = 1e-5  # fastText adds it inside its logarithms


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx`, `labels.txt` (a tag of BCP 47 a line), `names.txt` (in English) and `ngrams.json`."""
    model = read_model(sources[SOURCE])
    _check(model)
    build(model).save(out / "model.onnx")
    tags = [BCP_47.get(label, label) for label in model.labels]
    _write_lines(tags, out / "labels.txt")
    _write_lines([NAMES[tag] for tag in tags], out / "names.txt")
    facts = {
        "words": model.words,
        "ngrams": model.ngrams,
        "buckets": model.arguments["bucket"],
        "min_length": model.arguments["minn"],
        "max_length": model.arguments["maxn"],
    }
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    (out / "ngrams.json").write_text(text, encoding="utf-8", newline="\n")


def build(model: FastText) -> Graph:
    """`ids` [batch, n], padded with the number of rows, → `probabilities` [batch, labels]."""
    graph, rows = Graph("lid_176"), len(model.inputs)
    ids = graph.input("ids", np.int64, ["batch", "n"])
    hidden = _mean(graph, ids, np.concatenate([model.inputs, np.zeros((1, model.inputs.shape[1]), np.float32)]), rows)
    sides = paths(model.label_counts)
    logits = graph.op("MatMul", hidden, np.ascontiguousarray(model.outputs[: sides.shape[1]].T))
    right = graph.op("Sigmoid", logits)
    left = graph.op("Sub", float32(1), right)
    both = graph.op("Add", graph.op("Concat", right, left, axis=1), float32(LOG_EPSILON))
    total = graph.op("MatMul", graph.op("Log", both), sides.reshape(-1, sides.shape[2]))
    probabilities = graph.op("Min", graph.op("Exp", total), float32(1))  # the epsilon lifts a sure one over 1
    graph.output("probabilities", probabilities, np.float32, ["batch", sides.shape[2]])
    return graph


def _mean(graph: Graph, ids: str, table: Array, padding: int) -> str:
    """The mean of the rows of `table` that `ids` names, padding left out: [batch, dim]."""
    total = graph.op("ReduceSum", graph.op("Gather", table, ids, axis=0), int64(1), keepdims=0)
    real = graph.op("Cast", graph.op("Less", ids, np.array(padding, np.int64)), to=TensorProto.FLOAT)
    count = graph.op("Max", graph.op("ReduceSum", real, int64(1), keepdims=1), float32(1))
    return graph.op("Div", total, count)


def paths(counts: Sequence[int]) -> Array:
    """Which way each label lies at each inner node of the Huffman tree of labels, most frequent first.

    f32 [right or left, inner nodes, labels], 1 where the label's path turns so. Inner nodes are numbered as they are
    made, from the least frequent up; of two that are joined the rarer is on the left (fastText's `loss.cc`).
    """
    leaves = deque((count, [label]) for label, count in reversed(list(enumerate(counts))))
    inner: deque[tuple[int, list[int]]] = deque()
    sides = np.zeros((2, len(counts) - 1, len(counts)), np.float32)

    def take() -> tuple[int, list[int]]:
        from_leaves = leaves and (not inner or leaves[0][0] < inner[0][0])
        return leaves.popleft() if from_leaves else inner.popleft()

    for node in range(len(counts) - 1):
        (left_count, left), (right_count, right) = take(), take()
        sides[0, node, right] = sides[1, node, left] = 1
        inner.append((left_count + right_count, left + right))
    return sides


def _check(model: FastText) -> None:
    """ValueError for a model that is computed in another way."""
    arguments = model.arguments
    wanted = {"model": SUPERVISED, "loss": HIERARCHICAL_SOFTMAX, "word_ngrams": 1}
    if any(arguments[name] != value for name, value in wanted.items()) or arguments["minn"] < 2:
        raise ValueError(
            f"expected a supervised model with hierarchical softmax, without n-grams of words: {arguments}"
        )


def _write_lines(lines: Sequence[str], path: Path) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
