"""What ONNX Runtime's providers are told, from a card: pure functions. Stage: executor.

The names are those of ONNX Runtime's documentation of the CUDA and TensorRT execution providers.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import platformdirs

from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.executor.buckets import Buckets, padded_shape
from ortmesh.serving.signature import Signature

MEBIBYTE = 1024 * 1024
FLASH, MEMORY_EFFICIENT, UNFUSED = 1, 2, 16
REPEATABLE_ATTENTION = FLASH | MEMORY_EFFICIENT | UNFUSED
"""Of ONNX Runtime's kernels for attention (the bits of its `AttentionBackend`) those that give the same digits each
time, as was measured (docs/decisions/0024). Not among them: cuDNN's (8), which it prefers from compute capability 9.0
on, and which do not."""

Options = dict[str, str]


def cuda_options(runtime: Runtime, *, stream: int | None, record: bool) -> Options:
    """For CUDA: the arena grows by what is asked for, else a burst leaves twice its size behind.

    `stream` is the address of the stream to compute on; `record` prepares for recorded runs.
    """
    options = {**_device(runtime), "arena_extend_strategy": "kSameAsRequested"}
    if runtime.gpu_mem_limit_mb is not None:
        options["gpu_mem_limit"] = str(runtime.gpu_mem_limit_mb * MEBIBYTE)
    if stream is not None:
        options["user_compute_stream"] = str(stream)
    if record:
        options["enable_cuda_graph"] = "1"
    options["use_tf32"] = (
        "1" if runtime.tf32 else "0"
    )  # on by default, and then errors of 1e-3 break a card's tolerance
    if runtime.engine is not None:
        options["sdpa_kernel"] = str(REPEATABLE_ATTENTION)
    options["cudnn_conv_algo_search"] = "HEURISTIC"  # the exhaustive search runs anew for every shape that comes
    return options


def tensorrt_options(
    runtime: Runtime, cache: Path, profiles: Mapping[str, str] | None = None, *, stream: int | None = None
) -> Options:
    """For TensorRT: engines and timings are kept in `cache`, for building one takes minutes.

    `profiles` are the ranges of shapes an engine is built for, as `profiles_of` makes them; without any, TensorRT
    builds anew whenever a shape leaves the range that it has seen. What CUDA's provider takes as 1 and 0 this one takes
    as True and False only.
    """
    written = runtime.tensorrt
    options = {
        **_device(runtime),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
        "trt_fp16_enable": str(written.fp16),
    }
    if written.workspace_mb is not None:
        options["trt_max_workspace_size"] = str(written.workspace_mb * MEBIBYTE)
    if stream is not None:
        options["user_compute_stream"] = str(stream)
    return options | dict(profiles or {})


def _device(runtime: Runtime) -> Options:
    """The first GPU is not named: it is the default, and ONNX Runtime warns at each session that names its device (it
    looks for a plugin of that number first, and finds none)."""
    return {"device_id": str(runtime.device_id)} if runtime.device_id else {}


def profiles_of(signature: Signature, buckets: Buckets) -> Options:
    """The smallest, the usual and the largest shape of every input, where the card's buckets tell them.

    Empty when an input has a free dimension that is neither rows nor the padded axis: then nobody can tell.
    """
    spans: dict[str, list[str]] = {"min": [], "opt": [], "max": []}
    rows, sizes = buckets.rows, buckets.sizes or (0,)
    corners = {
        "min": (rows[0], sizes[0]),
        "opt": (rows[len(rows) // 2], sizes[len(sizes) // 2]),
        "max": (rows[-1], sizes[-1]),
    }
    for (name, info), (corner, (many, size)) in itertools.product(signature.inputs.items(), corners.items()):
        shape = padded_shape(info, info.shape, many, size)
        if any(length < 0 for length in shape):
            return {}
        spans[corner].append(f"{name}:{'x'.join(map(str, shape))}")
    return {f"trt_profile_{corner}_shapes": ",".join(shapes) for corner, shapes in spans.items()}


def engines_of(card: Card, folder: Path) -> Path:
    """Where TensorRT keeps its engines: in the version's folder, or in the user's cache where that can't be written."""
    if os.access(folder, os.W_OK):
        return folder / ".tensorrt"
    return platformdirs.user_cache_path("ortmesh") / "tensorrt" / card.name / card.version


def as_providers(
    names: Sequence[str], options: Mapping[str, Mapping[str, str]]
) -> list[str | tuple[str, dict[str, str]]]:
    """As `InferenceSession` takes them."""
    return [(name, dict(options[name])) if name in options else name for name in names]
