"""The bench of a GPU, where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--store", str(tmp_path / "store"), *options],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_without_its_models_it_says_which_and_measures_nothing(tmp_path: Path) -> None:
    done = check(tmp_path, "--provider", "cpu", "--steps", "steps,same")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("lacks models: ortmesh pull smollm2-135m-instruct-f16\n")
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_none_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = check(tmp_path, "--steps", "steps,fast")
    assert done.returncode == 2
    assert "there is no step fast" in done.stderr


def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path: Path) -> None:
    for name in ("all-minilm-l6-v2-f16", "efficientnet-lite0", "centerface", "smollm2-135m-instruct-f16"):
        card = tmp_path / "store" / name / "1" / "card.yaml"
        card.parent.mkdir(parents=True)
        card.touch()
    done = check(tmp_path)
    assert done.returncode == 2, done.stderr
    assert "no GPU" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["store"]
