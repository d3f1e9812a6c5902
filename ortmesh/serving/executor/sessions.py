"""Sessions of ONNX Runtime for one executor: which provider, how many threads, which options. Stage: executor."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from functools import cache
from pathlib import Path

import onnxruntime

from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor.cuda import CudaFailed, CudaStream
from ortmesh.serving.executor.failures import readable
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.provider_options import Options, as_providers, cuda_options, tensorrt_options
from ortmesh.serving.executor.quiet import QUIET

log = logging.getLogger(__name__)

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

    def __init__(
        self,
        runtime: Runtime,
        threads: int,
        *,
        engines: Path | None = None,
        profiles: Callable[[Path], Options] = lambda path: {},
    ) -> None:
        """`engines` is the folder where TensorRT keeps what it builds (the graph's own by default), `profiles` tells
        the shapes that it builds for, of the graph at a path."""
        self._runtime = runtime
        self._threads = threads
        self._engines = engines
        self._profiles = profiles
        self._records = runtime.cuda_graph
        self.note = ""
        """What an operator should know of how they were opened."""
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
        stream = stream_of(self._runtime)
        with QUIET.using() if stream is not None else nullcontext():
            made, records = self._start(path, stream)
        required = self._runtime.require
        if required is not None and made.get_providers()[0] != PROVIDERS[required]:
            raise ProviderMissing(f"the card requires {required}, and it failed to start; the log says why")
        on_device = made.get_providers()[0] != PROVIDERS["cpu"]
        session = InterruptibleSession(made, stream if on_device else None, records=records and on_device)
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

    @property
    def records(self) -> bool:
        """True when sessions that are opened from now on may record their runs."""
        return self._records

    def record_no_more(self, error: BaseException) -> None:
        """Sessions that are opened from now on do without, because of an error."""
        self._records = False
        self.note = f"its runs are not recorded (CUDA graphs): {readable(error)}"

    def shrink(self) -> None:
        """Gives back the memory that they keep beyond their weights; by the thread that runs them."""
        for session in self._opened:
            session.shrink()

    def _start(self, path: Path, stream: CudaStream | None) -> tuple[onnxruntime.InferenceSession, bool]:
        """(the session, whether it may record its runs): a graph that can't be recorded is served without."""
        names = providers_of(self._runtime)
        record = self._records and stream is not None and names[0] == PROVIDERS["cuda"]
        try:
            return self._make(path, names, stream, record=record), record
        except Exception as error:
            if not record:
                raise
            self.record_no_more(error)
            return self._make(path, names, stream, record=False), False

    def _make(
        self, path: Path, names: Sequence[str], stream: CudaStream | None, *, record: bool
    ) -> onnxruntime.InferenceSession:
        handle = stream.handle if stream is not None else None
        options = {PROVIDERS["cuda"]: cuda_options(self._runtime, stream=handle, record=record)}
        if PROVIDERS["tensorrt"] in names:
            engines = self._engines or path.parent / ".tensorrt"
            engines.mkdir(parents=True, exist_ok=True)
            options[PROVIDERS["tensorrt"]] = tensorrt_options(
                self._runtime, engines, self._profiles(path), stream=handle
            )
        self._loading = self.options()
        self._loading.set_load_cancellation_flag(self._interrupted)
        made = onnxruntime.InferenceSession(str(path), self._loading, providers=as_providers(names, options))
        made.disable_fallback()  # else a run that fails has the whole session made anew on the CPU, without a word
        return made


@cache
def _find_libraries() -> None:
    """Loads CUDA and cuDNN out of NVIDIA's Python packages, where those are installed and not the system's own."""
    said = io.StringIO()
    with redirect_stdout(said):  # it prints what it did not find
        onnxruntime.preload_dlls()
    if said.getvalue():
        log.info("%s", said.getvalue().strip())


def stream_of(runtime: Runtime) -> CudaStream | None:
    """A stream of the card's GPU for one session; None where sessions run on the CPU.

    A machine where the CUDA provider is installed and no GPU answers has none: ONNX Runtime then falls to the CPU,
    unless the card requires it.
    """
    if providers_of(runtime)[0] == PROVIDERS["cpu"]:
        return None
    try:
        _find_libraries()
        return CudaStream(runtime.device_id)
    except (OSError, CudaFailed) as error:
        if runtime.require is not None and runtime.require != "cpu":
            raise ProviderMissing(f"the card requires {runtime.require}, and there is no GPU to use: {error}") from None
        log.warning("no GPU can be used: %s", error)
        return None
