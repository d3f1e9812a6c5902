"""A service's products of matrices: in one thread each, since others' would spin beside its models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SERVICE = """
import json, sys
from threadpoolctl import threadpool_info, threadpool_limits
import numpy as np
from ortmesh.serving import host

threadpool_limits(3, user_api="blas")
host._runner = lambda: lambda serving: serving.close()
sys.argv = ["ortmesh_nlp", "--listen", "127.0.0.1:0", "--models", sys.argv[1]]
host.main("nlp", "ortmesh.nlp.v1.NlpService", lambda models: [])
print(json.dumps([library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]))
"""


def test_a_service_computes_products_in_one_thread(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", SERVICE, str(tmp_path)], capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found, "NumPy has no library whose threads can be counted"
    assert set(found) == {1}
