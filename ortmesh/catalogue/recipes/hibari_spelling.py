"""How Hibari pronounces words that its lexicon lacks, letter by letter: ready ONNX, only names and dimensions changed.

Architecture: a character transformer of 0.7 million parameters whose answer is read as CTC's: equal neighbours are one,
blanks are left out (github.com/MMWilliams/hibari).
"""

import json
from collections.abc import Mapping
from pathlib import Path

import onnx

from ortmesh.catalogue.recipes._rename import rename_value, save, set_shapes

OUTPUTS: tuple[str, ...] = ("model.onnx", "spelling.json")

SOURCE, LETTERS = "oov.onnx", "oov.json"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx`: `letters` int64 [1, letters] → `phonemes` int64 [1, steps]; and `spelling.json`

    with `letters` and `phonemes`, whose numbers begin at 1 (phoneme 0 is CTC's blank), and the `longest` word.
    """
    model = onnx.load(sources[SOURCE])
    rename_value(model.graph, "chars", "letters")
    rename_value(model.graph, "ids", "phonemes")
    set_shapes(model.graph, {"letters": (1, "letters"), "phonemes": (1, "steps")})
    save(model, out / "model.onnx")
    told = json.loads(sources[LETTERS].read_text(encoding="utf-8"))
    content = {"letters": "".join(told["in"]), "phonemes": "".join(told["out"]), "longest": told["maxlen"]}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (out / "spelling.json").write_text(text + "\n", encoding="utf-8", newline="\n")
