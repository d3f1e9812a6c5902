"""The tokenizers' library starts no more threads than the process may use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ortmesh.config import cpus
from ortmesh.serving.store import Store

COUNT = """
import os, sys
from pathlib import Path
from ortmesh.serving.tokenizing import load_tokenizer

tokenizer = load_tokenizer(Path(sys.argv[1]))
before = len(os.listdir("/proc/self/task"))
tokenizer.encode_batch(["some words"] * 64)
print(len(os.listdir("/proc/self/task")) - before, os.environ["RAYON_NUM_THREADS"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize("asked", [None, "3"])
def test_threads_are_those_of_the_quota_unless_the_operator_says_otherwise(store: Store, asked: str | None) -> None:
    file = store.folder("all-minilm-l6-v2", "1") / "tokenizer.json"
    environment = {name: value for name, value in os.environ.items() if name != "RAYON_NUM_THREADS"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"RAYON_NUM_THREADS": asked} if asked else {})
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(file)], env=environment, check=True, capture_output=True, text=True
    )
    expected = asked or str(cpus())
    assert done.stdout.split() == [expected, expected]
