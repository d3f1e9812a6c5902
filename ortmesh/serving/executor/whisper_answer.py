"""What Whisper's items are made of, and what they give. Stage: executor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ortmesh.serving.executor.whisper_facts import Facts
from ortmesh.serving.executor.whisper_search import Hypothesis
from ortmesh.serving.executor.whisper_window import Result, Window
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.tensors import dtype_of
from ortmesh.serving.types import Array, Tensors


def signature_of(facts: Facts) -> Signature:
    """The program's tensors; each has a row for each window. -1 in tokens stands for none.

    Needed: `mel` (log-mel, frames of 10 ms, even) and `beam_width` (1 is greedy, at most 8). Optional: `language` (its
    place among the card's `languages`; -1: the model hears it), `prompt` (tokens of the text before), `bias_tokens` and
    `bias_boost` (phrases that are favoured, and how much each of their tokens gains), `want_words` (1: `token_frames`),
    `want_text` (0: only the language is told).

    They give `tokens` without special ones (shorter rows end in ends of text), their `token_logprobs` and
    `mean_logprob`, `no_speech` (probability), `token_frames` (the first frame of 20 ms of each token and the one after
    its last; none where nobody asked), `language`, `language_logprobs` (of all languages), `alternatives` (other texts,
    best first) and `alternative_logprobs` (-inf where a row has fewer).
    """
    languages = max(len(facts.languages), 1)
    inputs = [
        _info("mel", "FP32", -1, facts.mels, -1, pad_axis=2),
        _info("beam_width", "INT64", -1),
        _info("language", "INT64", -1, optional=True),
        _info("prompt", "INT64", -1, -1, optional=True),
        _info("bias_tokens", "INT64", -1, -1, -1, optional=True),
        _info("bias_boost", "FP32", -1, -1, optional=True),
        _info("want_words", "INT64", -1, optional=True),
        _info("want_text", "INT64", -1, optional=True),
    ]
    outputs = [
        _info("tokens", "INT64", -1, -1),
        _info("mean_logprob", "FP32", -1),
        _info("no_speech", "FP32", -1),
        _info("token_logprobs", "FP32", -1, -1),
        _info("token_frames", "INT64", -1, -1, 2),
        _info("language", "INT64", -1),
        _info("language_logprobs", "FP32", -1, languages),
        _info("alternatives", "INT64", -1, -1, -1),
        _info("alternative_logprobs", "FP32", -1, -1),
    ]
    return Signature({info.name: info for info in inputs}, {info.name: info for info in outputs})


def outputs_of(windows: Sequence[Window], facts: Facts) -> Tensors:
    """What was found in an item's windows, all of which are settled."""
    results = [window.result for window in windows if window.result is not None]
    texts, end = [result.hypothesis for result in results], facts.tokens["end_of_text"]
    return {
        "tokens": _filled([text.tokens for text in texts], end, np.int64),
        "mean_logprob": np.array([text.mean_logprob for text in texts], np.float32),
        "no_speech": np.array([result.no_speech for result in results], np.float32),
        "token_logprobs": _filled([text.logprobs[: len(text.tokens)] for text in texts], 0, np.float32),
        "token_frames": _frames(windows),
        "language": np.array([window.language for window in windows], np.int64),
        "language_logprobs": np.stack([window.languages for window in windows]).astype(np.float32),
        **_alternatives(results, end),
    }


def _alternatives(results: Sequence[Result], end: int) -> Tensors:
    most = max(len(result.others) for result in results)
    none = Hypothesis((), (-np.inf,), -np.inf)
    rows = [[*result.others, *[none] * (most - len(result.others))] for result in results]
    texts = _filled([other.tokens for row in rows for other in row], end, np.int64)
    return {
        "alternatives": texts.reshape(len(rows), most, texts.shape[1]),
        "alternative_logprobs": np.array([[other.mean_logprob for other in row] for row in rows], np.float32),
    }


def _frames(windows: Sequence[Window]) -> Array:
    longest = max(len(window.token_frames) for window in windows)
    frames = np.zeros((len(windows), longest, 2), np.int64)
    for row, window in enumerate(windows):
        frames[row, : len(window.token_frames)] = window.token_frames
    return frames


def _filled(rows: Sequence[Sequence[float]], filling: int, dtype: type) -> Array:
    """Rows of unequal lengths, filled up."""
    filled: Array = np.full((len(rows), max(map(len, rows), default=0)), filling, dtype)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row
    return filled


def _info(name: str, datatype: str, *shape: int, pad_axis: int | None = None, optional: bool = False) -> TensorInfo:
    return TensorInfo(name, datatype, dtype_of(datatype), shape, batch_axis=0, pad_axis=pad_axis, optional=optional)
