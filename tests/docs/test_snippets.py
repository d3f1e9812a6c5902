"""The docs are run: every block of Python and shell in the project's Markdown files, in the order of its page."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import Desk
from tests.docs.pages import PAGES, Block, blocks

ADDRESS = "127.0.0.1:8080"
SECONDS = 200
RUN = ("python", "sh")
SHOWN = ("text", "proto", "yaml", "diff")
"""Languages of blocks that nothing runs; those of the pages about cards and tasks have tests of their own."""

WITH_A_GPU = "for machines with a GPU"
ELSEWHERE = {
    "scripts/demo    # real models answer real inputs, in the terminal and in demo.html; a minute the first time": (
        "scripts/test runs this test"
    ),
    "pip install '.[all]'          # families, gateway, command line, CPU runtime": "the wheel has a test of its own, "
    "and this page's other blocks run against `ortmesh up`",
    "pip install '.[vision,speech,nlp,gateway,native,cli,gpu]' 'onnxruntime-gpu[cuda,cudnn]'": WITH_A_GPU,
    "python -m onnxruntime_genai.models.builder -m HuggingFaceTB/SmolLM2-360M-Instruct -o my-llama -p int4 -e cpu": (
        "fetches from a hub; the desk has a tiny model in the form in which it leaves one"
    ),
    "ortmesh pull smollm2-135m-instruct-f16": "270 MB for GPUs; how they are made is tested on a tiny model",
    "ortmesh pull all-minilm-l6-v2-f16 efficientnet-lite0 centerface smollm2-135m-instruct-f16": WITH_A_GPU,
}
"""Blocks that are not run here, by their first line, and why."""
APPLIED = ("adding-a-task.md",)
"""Pages whose blocks are changes to the code; their tests apply them."""
PROGRAMS = ("grpcurl",)
"""What the docs use and a machine may lack."""
CLUSTER = ("docker build", "kind create", "kubectl")
"""What needs a cluster, or a daemon that builds for it: tests/deploy compares these commands with the manifests."""


def test_every_block_is_of_a_language_that_is_known() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language in (*RUN, *SHOWN), block


def test_every_exception_is_still_there() -> None:
    first_lines = {block.text.splitlines()[0] for page in PAGES for block in blocks(page)}
    assert set(ELSEWHERE) <= first_lines


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "adding-a-task.md"], ids=lambda page: page.name
)
def test_the_blocks_of_a_page_work(page: Path, desk: Desk) -> None:
    for block in blocks(page):
        if block.language in RUN and block.text.splitlines()[0] not in ELSEWHERE and _can_run(block):
            done = run(block, desk)
            assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"


def _can_run(block: Block) -> bool:
    needed = [name for name in PROGRAMS if name in block.text]
    return not any(command in block.text for command in CLUSTER) and all(shutil.which(name) for name in needed)


def run(block: Block, desk: Desk) -> subprocess.CompletedProcess[str]:
    """Runs a block in the desk's folder, against its mesh."""
    text = block.text.replace(ADDRESS, desk.address)
    command = [sys.executable, "-c", text] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ORTMESH_ADDRESS": desk.address,
        "ORTMESH_MODELS": str(desk.store),
    }
    return subprocess.run(
        command, cwd=desk.folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
