"""Sessions of ONNX Runtime for one model: which provider, how many threads, which options. Stage: executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from ortmesh.serving.cards import Runtime

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "cpu": "CPUExecutionProvider"}


class ProviderMissing(Exception):
    """A card demands a provider that this machine does not have."""


def choose_providers(runtime: Runtime, available: Sequence[str]) -> list[str]:
    """The providers for a card, in its order of preference; CPU comes last always.

    ProviderMissing when the card requires one that is not available: never a silent fall to the CPU.
    """
    if runtime.require is not None and PROVIDERS[runtime.require] not in available:
        raise ProviderMissing(
            f"the card requires {runtime.require} ({PROVIDERS[runtime.require]}), "
            f"and ONNX Runtime offers only {', '.join(available)} here"
        )
    wanted = [PROVIDERS[name] for name in runtime.providers if PROVIDERS[name] in available]
    if runtime.require is not None:
        first = PROVIDERS[runtime.require]
        wanted = [first, *(name for name in wanted if name != first)]
    return [*(name for name in wanted if name != PROVIDERS["cpu"]), PROVIDERS["cpu"]]


@dataclass(frozen=True, slots=True)
class Sessions:
    """Opens a model's sessions, all in the same way."""

    runtime: Runtime
    threads: int
    """Threads of one session's operators: the container's CPU quota, not the host's cores."""

    @property
    def providers(self) -> list[str]:
        """The providers in order of preference on this machine."""
        return choose_providers(self.runtime, onnxruntime.get_available_providers())

    def options(self) -> onnxruntime.SessionOptions:
        """No spinning, threads by the quota, no memory pattern (it grows with every shape that varies)."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        return options

    def open(self, path: Path) -> onnxruntime.InferenceSession:
        """A session of the file at `path`: bytes would hold the interpreter for 150 times as long.

        ProviderMissing when the card requires a provider that does not come up.
        """
        session = onnxruntime.InferenceSession(str(path), self.options(), providers=self._with_options())
        required = self.runtime.require
        if required is not None and session.get_providers()[0] != PROVIDERS[required]:
            raise ProviderMissing(f"the card requires {required}, and it failed to start; the log says why")
        return session

    def _with_options(self) -> list[str | tuple[str, dict[str, Any]]]:
        return [(name, self._cuda_options()) if name == PROVIDERS["cuda"] else name for name in self.providers]

    def _cuda_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"arena_extend_strategy": "kSameAsRequested"}
        if self.runtime.gpu_mem_limit_mb is not None:
            options["gpu_mem_limit"] = self.runtime.gpu_mem_limit_mb * 1024 * 1024
        return options
