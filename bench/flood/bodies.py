"""Bodies: what the callers send, serialized."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.flood.graph import COLUMNS
from ortmesh.descriptors import oip
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest

WORDS = ("the", "train", "at", "platform", "seven", "leaves", "a", "little", "later", "than", "everybody", "expected")


def infer(model: str, *, rows: int = 1) -> str:
    """ModelInfer of so many rows of a steady model, in hex."""
    request: Any = oip("ModelInferRequest")(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, COLUMNS])
    request.raw_input_contents.append(np.ones((rows, COLUMNS), np.float32).tobytes())
    return bytes(request.SerializeToString()).hex()


def embed(lengths: Sequence[int]) -> tuple[str, ...]:
    """Embed of one text of each of these numbers of words, always the same ones, in hex."""
    chance = random.Random(7)
    texts = [" ".join(chance.choices(WORDS, k=length)) for length in lengths]
    return tuple(EmbedRequest(texts=[text]).SerializeToString().hex() for text in texts)
