"""Sessions of ONNX Runtime for one executor: which provider, how many threads, which options. Stage: executor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor.interruptible import InterruptibleSession

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


def has_device() -> bool:
    """True when ONNX Runtime can compute elsewhere than on the CPU here."""
    return any(PROVIDERS[name] in onnxruntime.get_available_providers() for name in ("cuda", "tensorrt"))


def providers_of(runtime: Runtime) -> list[str]:
    """The providers for a card on this machine."""
    return choose_providers(runtime, onnxruntime.get_available_providers())


class Sessions:
    """Opens an executor's sessions, all in the same way, and holds them: to interrupt and to shrink all at once."""

    def __init__(self, runtime: Runtime, threads: int) -> None:
        self._runtime = runtime
        self._threads = threads
        self._loading: onnxruntime.SessionOptions | None = None
        self._opened: list[InterruptibleSession] = []
        self._interrupted = False

    def options(self) -> onnxruntime.SessionOptions:
        """No spinning, threads by the quota, no memory pattern (it grows with every shape that varies)."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        return options

    def open(self, path: Path) -> InterruptibleSession:
        """A session of the file at `path`: bytes would hold the interpreter for 150 times as long.

        ProviderMissing when the card requires a provider that does not come up.
        """
        self._loading = self.options()
        self._loading.set_load_cancellation_flag(self._interrupted)
        made = onnxruntime.InferenceSession(str(path), self._loading, providers=self._with_options())
        required = self._runtime.require
        if required is not None and made.get_providers()[0] != PROVIDERS[required]:
            raise ProviderMissing(f"the card requires {required}, and it failed to start; the log says why")
        session = InterruptibleSession(made)
        self._opened.append(session)
        if self._interrupted:
            session.interrupt()
        return session

    def interrupt(self) -> None:
        """Ends what they compute and what is being opened; from any thread."""
        self._interrupted = True
        if self._loading is not None:
            self._loading.set_load_cancellation_flag(True)
        for session in list(self._opened):
            session.interrupt()

    def resume(self) -> None:
        """After an interruption: they compute again."""
        self._interrupted = False
        for session in self._opened:
            session.resume()

    def shrink(self) -> None:
        """Gives back the memory that they keep beyond their weights; by the thread that runs them."""
        for session in self._opened:
            session.shrink()

    def _with_options(self) -> list[str | tuple[str, dict[str, Any]]]:
        return [
            (name, self._cuda_options()) if name == PROVIDERS["cuda"] else name for name in providers_of(self._runtime)
        ]

    def _cuda_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"arena_extend_strategy": "kSameAsRequested"}
        if self._runtime.gpu_mem_limit_mb is not None:
            options["gpu_mem_limit"] = self._runtime.gpu_mem_limit_mb * 1024 * 1024
        return options
