"""Sessions of ONNX Runtime for one executor: which provider, how many threads, which options. Stage: executor."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, cached_property
from pathlib import Path

import onnxruntime

from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor.cuda import CudaFailed, CudaStream, Stream
from ortmesh.serving.executor.failures import is_of_device, lacks_memory, readable
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.provider_options import Options, as_providers, cuda_options, tensorrt_options
from ortmesh.serving.executor.quiet import QUIET

log = logging.getLogger(__name__)

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "cpu": "CPUExecutionProvider"}

SPINNING = {
    "session.intra_op.allow_spinning": "1",
    "session.force_spinning_stop": "1",
    "session.intra_op.spin_duration_us": "10",
    "session.intra_op.spin_backoff_max": "16",
    "session.inter_op.allow_spinning": "0",
}
"""A thread that waits for its part of an operator looks for it for 10 µs before it sleeps, and never between runs.

Operators of small models last less than it takes to be woken: a step of SmolLM2-135M takes 4.5 ms so and 7.9 without.
Two such sessions on the same two cores are a little quicker, too (106 steps a second each and 99), while ONNX Runtime's
own way, to look for a millisecond and after the run, makes them slower (75).
"""
EXACT_SUMS = ("session.x64quantprecision", "1")
"""On x86 processors without VNNI ONNX Runtime adds products of 8 bits in 16, where those of signed weights overflow.
With this it makes such weights of the outer graph unsigned there, which takes an eighth longer; elsewhere it does
nothing (docs/decisions/0026)."""
GPU = ("cuda", "tensorrt")
DRIVER = "libcuda.so.1"


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
    return any(PROVIDERS[name] in _available(0) for name in GPU)


def providers_of(runtime: Runtime) -> list[str]:
    """The providers for a card on this machine. ProviderMissing when the card requires one that it lacks.

    Where the package for GPUs is installed and no GPU answers, there are none: ONNX Runtime would say so on every load.
    """
    try:
        return choose_providers(runtime, _available(runtime.device_id))
    except ProviderMissing:
        if runtime.require in GPU and (reason := _why_not(runtime)):
            raise ProviderMissing(f"the card requires {runtime.require}: {reason}") from None
        raise


def _why_not(runtime: Runtime) -> str:
    if PROVIDERS[runtime.require or ""] not in onnxruntime.get_available_providers():
        return "ONNX Runtime is installed for CPUs here: install the extra gpu in the place of cpu, or of all"
    return why_no_gpu(runtime.device_id)


def _available(device_id: int) -> list[str]:
    offered = list(onnxruntime.get_available_providers())
    gpu = {PROVIDERS[name] for name in GPU}
    if gpu.isdisjoint(offered) or not why_no_gpu(device_id):
        return offered
    return [name for name in offered if name not in gpu]


@cache
def why_no_gpu(device_id: int) -> str:
    """Why a GPU can't be used; empty when it can. Asked once a process: the first time takes the time to wake it up."""
    try:
        ctypes.CDLL(DRIVER)  # without it the next line prints what else it does not find
        onnxruntime.preload_dlls()  # CUDA and cuDNN out of NVIDIA's Python packages, where those are installed
        CudaStream(device_id)
    except (OSError, CudaFailed) as error:
        reason = f"no GPU can be used: {error}"
        log.warning("%s", reason)
        return reason
    return ""


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
        self._records = runtime.records
        self._notes: list[str] = []
        self.note = ""
        """What an operator should know of how they were opened."""
        self._loading: onnxruntime.SessionOptions | None = None
        self._opened: list[InterruptibleSession] = []
        self._interrupted = False

    def options(self, *, exact: bool = True) -> onnxruntime.SessionOptions:
        """Threads by the quota, no memory pattern (it grows with every shape that varies), EXACT_SUMS unless told."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        for name, value in SPINNING.items():
            options.add_session_config_entry(name, value)
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        if exact:
            options.add_session_config_entry(*EXACT_SUMS)
        return options

    def open(self, path: Path) -> InterruptibleSession:
        """A session of the file at `path`: bytes would hold the interpreter for 150 times as long.

        ProviderMissing when the card requires a provider that does not come up.
        """
        on_gpu = self._names[0] != PROVIDERS["cpu"]
        with QUIET.using() if on_gpu else nullcontext():
            stream = CudaStream(self._runtime.device_id) if on_gpu else None
            made, records = self._start(path, stream)
        required, got = self._runtime.require, made.get_providers()[0]
        if required is not None and got != PROVIDERS[required]:
            raise ProviderMissing(f"the card requires {required}, and it failed to start; the log says why")
        if got == PROVIDERS["cpu"] and stream is not None:
            stream, records = None, False
            if self._names[0] != got:  # else what it does without is noted already
                self.say(f"on the CPU: {self._names[0]} did not start, the log says why")
        session = InterruptibleSession(made, stream, records=records)
        self._opened.append(session)
        if self._interrupted:
            session.interrupt()
        return session

    def again(self, session: InterruptibleSession) -> InterruptibleSession:
        """One of these for another executor, held like the others."""
        made = session.again()
        self._opened.append(made)
        if self._interrupted:
            made.interrupt()
        return made

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
    def device(self) -> Stream | None:
        """A stream of the GPU on which they compute; None on a CPU."""
        return next((session.stream for session in self._opened if session.stream is not None), None)

    @property
    def gpu(self) -> str:
        """The name of the GPU on which they compute; empty on a CPU."""
        if (stream := self.device) is None:
            return ""
        with QUIET.using():
            return stream.name

    def fall_back(self, error: Exception) -> bool:
        """After an error: has sessions that are opened from now on do without what may be at fault, which are recorded
        runs, or TensorRT unless the card requires it. False where nothing is left to do without, or it was another's
        fault: there was no memory, or it was interrupted."""
        if self._interrupted or lacks_memory(error):
            return False
        if self._names[0] == PROVIDERS["cuda"] and self._records:
            self._records = False
            without = "its runs are not recorded (CUDA graphs)"
        elif self._names[0] == PROVIDERS["tensorrt"] and self._runtime.require != "tensorrt":
            self._names = [name for name in self._names if name != PROVIDERS["tensorrt"]]
            without = "without TensorRT"
        else:
            return False
        self.say(f"{without}: {readable(error)}")
        return True

    def say(self, note: str) -> None:
        """Adds to the note, once."""
        if note and note not in self._notes:
            self._notes.append(note)
            self.note = "; ".join(self._notes)

    def forget(self) -> None:
        """Lets go of those that were opened: others take their place."""
        self._opened.clear()

    def shrink(self) -> None:
        """Gives back the memory that they keep beyond their weights; by the thread that runs them."""
        for session in self._opened:
            session.shrink()

    @cached_property
    def _names(self) -> list[str]:
        """The providers that are left to try, the preferred one first. ProviderMissing as `providers_of`."""
        return providers_of(self._runtime)

    def _start(self, path: Path, stream: CudaStream | None) -> tuple[onnxruntime.InferenceSession, bool]:
        """(the session, whether it may record its runs): a graph is served without what it can't be opened with."""
        refused: Exception | None = None
        """What came of opening it with exact sums."""
        while True:
            record = self._records and self._names[0] == PROVIDERS["cuda"]
            try:
                made = self._make(path, self._names, stream, record=record, exact=refused is None)
            except Exception as error:
                if refused is None and self._may_be_for_exact_sums(error):
                    refused = error
                elif self.fall_back(error):
                    refused = None
                else:
                    raise
                continue
            if refused is not None:
                self.say(f"{path.name}: opened without exact sums of 8 bits: {readable(refused)}")
            return made, record

    def _may_be_for_exact_sums(self, error: Exception) -> bool:
        """ONNX Runtime can't open every graph so, and says so in many ways: operators that share weights, operators
        that take signed activations. An engine of TensorRT's is not built twice to find out."""
        elsewhere = lacks_memory(error) or is_of_device(error) or self._names[0] == PROVIDERS["tensorrt"]
        return not (elsewhere or self._interrupted)

    def _make(
        self, path: Path, names: Sequence[str], stream: CudaStream | None, *, record: bool, exact: bool
    ) -> onnxruntime.InferenceSession:
        handle = stream.handle if stream is not None else None
        options = {PROVIDERS["cuda"]: cuda_options(self._runtime, stream=handle, record=record)}
        if PROVIDERS["tensorrt"] in names:
            engines = self._engines or path.parent / ".tensorrt"
            engines.mkdir(parents=True, exist_ok=True)
            profiles = self._profiles(path)
            options[PROVIDERS["tensorrt"]] = tensorrt_options(self._runtime, engines, profiles, stream=handle)
        self._loading = self.options(exact=exact)
        self._loading.set_load_cancellation_flag(self._interrupted)
        providers = as_providers(names, options)
        # Else whatever goes wrong on a GPU, at the start or in a run, has the session made anew on the CPU.
        return onnxruntime.InferenceSession(str(path), self._loading, providers=providers, enable_fallback=0)
