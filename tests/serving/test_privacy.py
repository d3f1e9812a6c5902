"""Nothing reports to anybody what a mesh is used for."""

from __future__ import annotations

import os
import subprocess
import sys


def test_onnx_runtime_does_not_report_to_its_makers() -> None:
    """It does by default, on Linux too; its own switch must be set before it is imported."""
    code = (
        "import builtins, os\n"
        "imported = builtins.__import__\n"
        "def watch(name, *rest, **options):\n"
        "    if name == 'onnxruntime': assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'; print('checked')\n"
        "    return imported(name, *rest, **options)\n"
        "builtins.__import__ = watch\n"
        "import ortmesh.serving.host, ortmesh.serving.add\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "checked" in done.stdout
