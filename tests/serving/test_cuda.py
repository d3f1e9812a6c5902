"""The CUDA runtime is called as it wants to be: on a library that stands in for it where no GPU is."""

from __future__ import annotations

import ctypes
import struct
import sys
from typing import Any

import numpy as np
import pytest

from bench.gpu.host import HostStream
from ortmesh.serving.executor import cuda
from ortmesh.serving.executor.cuda import Box, CudaStream
from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.executor.sessions import why_no_gpu


class Library:
    """Hands out addresses, and notes which came back."""

    def __init__(self) -> None:
        self.freed: list[int] = []
        self.taken = 0

    def __getattr__(self, name: str) -> Any:
        if name in ("cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags"):
            return self._take
        if name in ("cudaFree", "cudaFreeHost", "cudaStreamDestroy"):
            return self._free
        if name == "cudaMemcpy3DAsync":
            return self._copy
        return self._name if name == "cudaGetDeviceProperties" else lambda *arguments: 0

    def _take(self, pointer: Any, *rest: object) -> int:
        self.taken += 1
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p))[0] = self.taken
        return 0

    def _name(self, properties: Any, device_id: int) -> int:
        properties[:11] = b"NVIDIA H20%d" % device_id
        return 0

    def _copy(self, asked: Any, stream: int) -> int:
        """As the runtime reads `cudaMemcpy3DParms` (driver_types.h): arrays, which are none, places within them, a
        `cudaPitchedPtr` (address, pitch, width, rows) each way, the extent and the kind, padded to eight bytes."""
        raw = ctypes.string_at(ctypes.addressof(asked._obj), ctypes.sizeof(asked._obj))
        fields = struct.unpack("=Q3Q4QQ3Q4Q3QiI", raw)
        source, target, (width, rows, slices), kind = fields[4:8], fields[12:16], fields[16:19], fields[19]
        assert not any((*fields[:4], *fields[8:12]))
        assert kind == 4, "the addresses tell which way"
        for piece in range(slices):
            for row in range(rows):
                came, went = (at + (piece * in_all + row) * pitch for at, pitch, _, in_all in (source, target))
                ctypes.memmove(went, came, width)
        return 0

    def _free(self, address: int) -> int:
        self.freed.append(address)
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(cuda, "runtime", lambda holding=False: library)
    return library


def test_memory_is_freed_with_its_object_but_not_while_one_records(library: Library) -> None:
    stream = CudaStream(0)
    memory, pinned = stream.memory(100), stream.pinned(100)
    address = memory.address
    del memory
    assert library.freed == [address]
    with QUIET.alone(patience=10) as quiet:
        assert quiet
        del pinned, stream
        assert library.freed == [address]
    assert len(library.freed) == 3


def test_a_stream_knows_its_gpu_by_name(library: Library) -> None:
    assert CudaStream(1).name == "NVIDIA H201"


def test_a_box_is_copied_as_the_runtime_is_told(library: Library) -> None:
    """Rows of some bytes, some rows of each slice: what lies between stays as it is."""
    box = Box(width=5, rows=2, slices=3, pitch=8, slice_rows=4)
    source = np.arange(3 * 4 * 8, dtype=np.uint8)
    ours, theirs = np.zeros_like(source), np.zeros_like(source)
    CudaStream(0).copy(ours.ctypes.data, source.ctypes.data, box)
    HostStream().copy(theirs.ctypes.data, source.ctypes.data, box)
    wanted = np.zeros((3, 4, 8), np.uint8)
    wanted[:, :2, :5] = source.reshape(3, 4, 8)[:, :2, :5]
    assert np.array_equal(ours.reshape(3, 4, 8), wanted)
    assert np.array_equal(theirs.reshape(3, 4, 8), wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries are named as on Linux")
def test_of_two_runtimes_the_one_that_is_loaded_already_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARIES", ("libanl.so.1", "libc.so.6"))  # every process has the latter
    assert cuda._library(ctypes.CDLL)._name == "libc.so.6"
    monkeypatch.setattr(cuda, "LIBRARIES", ("none.so", "libanl.so.1"))
    assert cuda._library(ctypes.PyDLL)._name == "libanl.so.1"


def test_to_look_for_a_gpu_leaves_the_processs_output_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads may be printing."""
    seen: list[object] = []
    monkeypatch.setattr("ortmesh.serving.executor.sessions.DRIVER", "libc.so.6")
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: seen.append(sys.stdout))
    why_no_gpu.__wrapped__(0)
    assert seen == [sys.stdout]


def test_a_machine_without_a_driver_is_told_so_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ortmesh.serving.executor.sessions.DRIVER", "none.so")
    assert why_no_gpu.__wrapped__(0).startswith("no GPU can be used: none.so")
    assert capfd.readouterr().out == ""
