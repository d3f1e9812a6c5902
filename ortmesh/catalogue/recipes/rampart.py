"""Rampart, a finder of personal data (BERT, 6 layers, 4-bit weights): ready ONNX, taken as it is.

Model: huggingface.co/nationaldesignstudio/rampart.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

OUTPUTS: tuple[str, ...] = ("model.onnx", "tokenizer.json", "labels.txt")

SOURCE, TOKENIZER, CONFIG = "model_q4.onnx", "tokenizer.json", "config.json"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx`, `tokenizer.json` and `labels.txt` (one a line, as BIO tags)."""
    shutil.copyfile(sources[SOURCE], out / "model.onnx")
    shutil.copyfile(sources[TOKENIZER], out / "tokenizer.json")
    labels: dict[str, str] = json.loads(sources[CONFIG].read_text(encoding="utf-8"))["id2label"]
    lines = "".join(f"{labels[str(index)]}\n" for index in range(len(labels)))
    (out / "labels.txt").write_text(lines, encoding="utf-8", newline="\n")
