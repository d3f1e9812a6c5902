"""What providers are told, by a card."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ortmesh.serving.cards import Batching, Card, EngineSettings, Runtime, TensorRT
from ortmesh.serving.cards import Buckets as Written
from ortmesh.serving.executor.buckets import buckets_of
from ortmesh.serving.executor.provider_options import (
    as_providers,
    cuda_options,
    engines_of,
    profiles_of,
    tensorrt_options,
)
from ortmesh.serving.executor.sessions import ProviderMissing, Sessions
from ortmesh.serving.signature import Signature, TensorInfo

IDS = TensorInfo("ids", "INT64", np.dtype(np.int64), (-1, -1), 0, pad_axis=1)
IMAGE = TensorInfo("image", "FP32", np.dtype(np.float32), (-1, 3, 224, 224), 0)
ANY_IMAGE = TensorInfo("image", "FP32", np.dtype(np.float32), (-1, 3, -1, -1), 0)


def card(**runtime: object) -> Card:
    return Card.model_validate({"name": "m", "family": "nlp", "runtime": runtime})


def test_cuda_takes_no_more_memory_than_was_asked_for_and_computes_floats_exactly() -> None:
    assert cuda_options(Runtime(), stream=None, record=False) == {
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def test_an_engines_attention_gives_the_same_digits_each_time() -> None:
    """ONNX Runtime's numbers of kernels: flash 1, memory-efficient 2, cuDNN's 8, unfused 16; 0 lets it choose."""
    assert cuda_options(Runtime(engine=EngineSettings()), stream=None, record=True)["sdpa_kernel"] == "19"
    assert "sdpa_kernel" not in cuda_options(Runtime(), stream=None, record=False)


@pytest.mark.parametrize(
    ("runtime", "records"),
    [
        (Runtime(), False),
        (Runtime(cuda_graph=True), True),
        (Runtime(engine=EngineSettings()), True),
        (Runtime(engine=EngineSettings(), cuda_graph=False), False),
    ],
)
def test_an_engines_runs_are_recorded_unless_its_card_says_otherwise(runtime: Runtime, records: bool) -> None:
    assert runtime.records == records


def test_the_first_device_is_not_named(tmp_path: Path) -> None:
    """ONNX Runtime warns at each session that names its device, and the first one is the default."""
    assert "device_id" not in cuda_options(Runtime(), stream=1, record=True)
    assert "device_id" not in tensorrt_options(Runtime(), tmp_path)
    assert tensorrt_options(Runtime(device_id=2), tmp_path)["device_id"] == "2"


def test_cuda_gets_the_cards_device_limit_and_stream() -> None:
    runtime = Runtime(device_id=1, gpu_mem_limit_mb=512, tf32=True)
    options = cuda_options(runtime, stream=140737488355328, record=True)
    assert options["device_id"] == "1"
    assert options["gpu_mem_limit"] == str(512 * 1024 * 1024)
    assert options["user_compute_stream"] == "140737488355328"
    assert options["enable_cuda_graph"] == "1"
    assert options["use_tf32"] == "1"


def test_tensorrt_keeps_engines_and_timings_and_computes_in_16_bits_only_when_the_card_says_so(tmp_path: Path) -> None:
    options = tensorrt_options(Runtime(), tmp_path)
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "True"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path)
    assert options["trt_fp16_enable"] == "False"
    assert "trt_max_workspace_size" not in options
    written = Runtime(tensorrt=TensorRT(fp16=True, workspace_mb=64))
    options = tensorrt_options(written, tmp_path, {"trt_profile_min_shapes": "ids:1x8"}, stream=5)
    assert options["trt_fp16_enable"] == "True"
    assert options["trt_max_workspace_size"] == str(64 * 1024 * 1024)
    assert options["trt_profile_min_shapes"] == "ids:1x8"
    assert options["user_compute_stream"] == "5"


def test_tensorrt_builds_for_the_cards_buckets() -> None:
    made = card(buckets={"rows": [1, 8, 32], "sizes": [16, 64, 256]})
    assert profiles_of(Signature({"ids": IDS}, {}), buckets_of(made, pad_sizes=True)) == {
        "trt_profile_min_shapes": "ids:1x16",
        "trt_profile_opt_shapes": "ids:8x64",
        "trt_profile_max_shapes": "ids:32x256",
    }


def test_tensorrt_builds_for_all_rows_of_an_image() -> None:
    made = Card(name="m", family="vision", batching=Batching(max_rows=8))
    found = profiles_of(Signature({"image": IMAGE}, {}), buckets_of(made, pad_sizes=False))
    assert found["trt_profile_max_shapes"] == "image:8x3x224x224"


def test_tensorrt_is_told_no_shapes_that_nobody_knows() -> None:
    assert profiles_of(Signature({"image": ANY_IMAGE}, {}), buckets_of(card(), pad_sizes=False)) == {}


def test_engines_are_kept_elsewhere_when_the_store_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root writes everywhere
    assert engines_of(card(), tmp_path).parts[-3:] == ("tensorrt", "m", "1")


def test_engines_are_kept_beside_the_model(tmp_path: Path) -> None:
    assert engines_of(card(), tmp_path) == tmp_path / ".tensorrt"


def test_options_go_to_the_provider_they_are_for() -> None:
    assert as_providers(["A", "B"], {"A": {"x": "1"}}) == [("A", {"x": "1"}), "B"]


def test_a_card_names_a_gpu_and_memory_that_can_be() -> None:
    for wrong in ({"device_id": -1}, {"gpu_mem_limit_mb": 0}, {"tensorrt": {"workspace_mb": 0}}):
        with pytest.raises(ValidationError):
            Runtime.model_validate(wrong)
    assert Written().rows == []


def test_a_card_that_requires_cuda_does_not_start_without(tmp_path: Path) -> None:
    with pytest.raises(ProviderMissing, match=r"requires cuda: (ONNX Runtime is installed for CPUs here|no GPU)"):
        Sessions(Runtime(require="cuda"), 1).open(tmp_path / "model.onnx")
