"""The reader of fastText's files and the recipes of the nlp family, on small files written here."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ortmesh.catalogue.recipes import lid_176, rampart
from ortmesh.catalogue.recipes._fasttext import read_model
from ortmesh.catalogue.recipes._languages import BCP_47, NAMES

RANDOM = np.random.default_rng(3)
WORDS, LABELS, NGRAMS, DIM = ["</s>", "ä"], ["en", "als", "bh"], [9, 4, 7], 4
COUNTS = [10, 5, 4]


def quantized(codes: np.ndarray, centroids: np.ndarray, columns: int) -> bytes:
    """A product-quantized matrix: one subspace a code, all equally wide."""
    subspaces = codes.shape[1]
    width = columns // subspaces
    quantizer = struct.pack("<iiii", columns, subspaces, width, width) + centroids.astype("<f4").tobytes()
    return codes.astype(np.uint8).tobytes() + quantizer


def write_model(path: Path, **changes: int) -> tuple[np.ndarray, np.ndarray]:
    """A file; returns its input and output matrices as they must be read."""
    arguments = {"dim": DIM, "ws": 5, "epoch": 5, "min_count": 1, "neg": 5, "word_ngrams": 1, "loss": 1, "model": 3}
    arguments |= {"bucket": 10, "minn": 2, "maxn": 3, "lr_update": 100} | changes
    rows = len(WORDS) + len(NGRAMS)
    codes, centroids = RANDOM.integers(0, 256, (rows, 2)), RANDOM.normal(size=(2, 256, 2)).astype(np.float32)
    norm_codes, norms = RANDOM.integers(0, 256, (rows, 1)), RANDOM.random((256, 1)).astype(np.float32)
    outputs = RANDOM.normal(size=(len(LABELS), DIM)).astype(np.float32)
    entries = [(word, 1, 0) for word in WORDS]
    entries += [(f"__label__{label}", count, 1) for label, count in zip(LABELS, COUNTS, strict=True)]
    body = struct.pack("<ii", 793712314, 12) + struct.pack("<12i", *arguments.values()) + struct.pack("<d", 1e-4)
    body += struct.pack("<iiiqq", len(entries), len(WORDS), len(LABELS), 99, len(NGRAMS))
    body += b"".join(word.encode() + b"\0" + struct.pack("<qb", count, kind) for word, count, kind in entries)
    body += b"".join(struct.pack("<ii", bucket, row) for row, bucket in reversed(list(enumerate(NGRAMS))))
    body += struct.pack("<??qqi", True, True, rows, DIM, codes.size) + quantized(codes, centroids, DIM)
    body += quantized(norm_codes, norms, 1)
    body += struct.pack("<?qq", False, len(LABELS), DIM) + outputs.astype("<f4").tobytes()
    path.write_bytes(body)
    inputs = np.concatenate([centroids[0][codes[:, 0]], centroids[1][codes[:, 1]]], axis=1) * norms[norm_codes[:, 0]]
    return inputs, outputs


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "lid.176.ftz"


def test_a_quantized_model_is_read_as_stored(source: Path) -> None:
    inputs, outputs = write_model(source)
    model = read_model(source)
    assert (model.words, model.labels, model.label_counts) == (tuple(WORDS), tuple(LABELS), tuple(COUNTS))
    assert model.ngrams == tuple(NGRAMS)
    np.testing.assert_allclose(model.inputs, inputs, rtol=1e-6)
    np.testing.assert_array_equal(model.outputs, outputs)


def test_another_file_and_a_cut_one_are_refused(source: Path) -> None:
    source.write_bytes(bytes(100))
    with pytest.raises(ValueError, match="no fastText model"):
        read_model(source)
    write_model(source)
    source.write_bytes(source.read_bytes()[:-8])
    with pytest.raises(ValueError, match="buffer"):
        read_model(source)


@pytest.mark.parametrize("changes", [{"loss": 2}, {"model": 1}, {"word_ngrams": 2}, {"minn": 1}])
def test_a_model_that_is_computed_otherwise_is_refused(source: Path, tmp_path: Path, changes: dict[str, int]) -> None:
    write_model(source, **changes)
    with pytest.raises(ValueError, match="hierarchical softmax"):
        lid_176.convert({source.name: source}, tmp_path)


def test_the_tree_is_huffmans() -> None:
    """5 and 4 are joined first, the rarer on the left; then 9 and 10."""
    right, left = lid_176.paths(COUNTS)
    assert right.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert left.tolist() == [[0, 0, 1], [0, 1, 1]]


def test_the_graph_computes_the_paths_of_the_mean_of_its_rows(source: Path, tmp_path: Path) -> None:
    inputs, outputs = write_model(source)
    lid_176.convert({source.name: source}, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.array([[0, 3, 4, 5, 5], [1, 1, 2, 0, 4]])  # 5 is padding
    (found,) = session.run(None, {"ids": ids})
    for row, real in zip(found, ([0, 3, 4], ids[1]), strict=True):
        inner = 1 / (1 + np.exp(-(outputs[:2] @ inputs[real].mean(axis=0))))
        expected = [inner[1], (1 - inner[1]) * inner[0], (1 - inner[1]) * (1 - inner[0])]
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_labels_become_tags_with_names_and_the_dictionary_travels_along(source: Path, tmp_path: Path) -> None:
    write_model(source)
    lid_176.convert({source.name: source}, tmp_path)
    assert (tmp_path / "labels.txt").read_text() == "en\ngsw\nbho\n"
    assert (tmp_path / "names.txt").read_text() == "English\nSwiss German\nBhojpuri\n"
    facts = json.loads((tmp_path / "ngrams.json").read_text(encoding="utf-8"))
    assert facts == {"words": WORDS, "ngrams": NGRAMS, "buckets": 10, "min_length": 2, "max_length": 3}


def test_the_names_are_as_many_as_the_languages() -> None:
    assert len(NAMES) == len(set(NAMES.values())) == 176
    assert set(BCP_47.values()) <= set(NAMES)


def test_rampart_is_taken_as_it_is_with_its_labels_in_order(tmp_path: Path) -> None:
    sources = {name: tmp_path / f"source-{name}" for name in (rampart.SOURCE, rampart.TOKENIZER, rampart.CONFIG)}
    sources[rampart.SOURCE].write_bytes(b"graph")
    sources[rampart.TOKENIZER].write_bytes(b"tokens")
    sources[rampart.CONFIG].write_text('{"id2label": {"1": "B-CITY", "0": "O"}}')
    rampart.convert(sources, tmp_path)
    assert [(tmp_path / name).read_bytes() for name in rampart.OUTPUTS] == [b"graph", b"tokens", b"O\nB-CITY\n"]
