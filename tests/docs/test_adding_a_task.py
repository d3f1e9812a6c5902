"""docs/adding-a-task.md is applied to a copy of the code: the task that comes out works and is under contract."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, Block, blocks

PAGE = DOCS / "adding-a-task.md"
COPIED = ("ortmesh", "services", "gateway", "protos", "pyproject.toml", "hatch_build.py")
TESTS = ("tests/__init__.py", "tests/conftest.py", "tests/nlp", "tests/test_contract.py")
TOLD = ("tests/nlp/test_similarity.py", "tests/test_contract.py", "-k", "similarity or comment")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code and the tests that the page touches."""
    for name in (*COPIED, *TESTS):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    return tmp_path


def test_the_page_makes_a_task_that_works(copy: Path) -> None:
    for block in blocks(PAGE):
        apply(block, copy)
    run(copy, "hatch_build.py")
    run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TOLD)
    run(copy, "-m", "ruff", "check", "services/ortmesh_nlp", "tests/nlp")


def apply(block: Block, root: Path) -> None:
    """Makes the change that a block shows in the file that the line above it names."""
    found = re.search(r"`([\w/.]+\.\w+)`", block.above)
    assert found, f"{block} does not say where it belongs"
    file = root / found[1]
    if "a new file" in block.above:
        assert not file.exists()
        file.write_text(block.text, encoding="utf-8")
        return
    before = file.read_text(encoding="utf-8")
    file.write_text(changed(before, block), encoding="utf-8")


def changed(before: str, block: Block) -> str:
    if "at the end" in block.above:
        return f"{before}\n{block.text}"
    if "inside the service" in block.above:
        head, service, rest = before.partition("service NlpService {\n")
        assert service
        return head + service + block.text + rest
    assert block.language == "diff", f"{block}: where in the file?"
    for hunk in block.text.split("@@\n"):
        old, new = side(hunk, "-"), side(hunk, "+")
        assert before.count(old) == 1, f"{block}: this is not in the code:\n{old}"
        before = before.replace(old, new)
    return before


def side(hunk: str, sign: str) -> str:
    """The lines of a diff before (`-`) or after (`+`) the change."""
    return "".join(line[1:] for line in hunk.splitlines(keepends=True) if line[0] in (" ", sign))


def run(root: Path, *arguments: str) -> None:
    """Runs Python on the copy alone."""
    path = os.pathsep.join(map(str, (root, root / "services", root / "gateway")))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
