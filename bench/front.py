"""CPU a request, throughput and latency of OIP ModelInfer on a small MLP: the service, the gateway before it, peers.

    python -m bench.front --rounds 5 --peer pull='python pull.py {port} {model}'

Every answer is checked once before a contestant is measured; h2load itself sees HTTP's status only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from ortmesh.descriptors import oip

PATH = "/inference.GRPCInferenceService/ModelInfer"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def write_mlp(path: Path) -> None:
    """A perceptron, 128 to 256 to 16."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((128, 256)) * 0.1,
        "b": np.zeros(256),
        "v": random.standard_normal((256, 16)) * 0.1,
        "c": np.zeros(16),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["p"]),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def request_body() -> bytes:
    """One framed gRPC message: a ModelInferRequest of one row."""
    request = oip("ModelInferRequest")(model_name="mlp")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 128])
    request.raw_input_contents.append(np.random.default_rng(1).standard_normal((1, 128), dtype=np.float32).tobytes())
    payload: bytes = request.SerializeToString()
    return b"\0" + struct.pack(">I", len(payload)) + payload


@dataclass
class Contestant:
    """A server that is measured."""

    name: str
    port: int
    processes: list[subprocess.Popen[bytes]]
    costs: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    alone_ms: list[float] = field(default_factory=list)


def cpu_seconds(processes: list[subprocess.Popen[bytes]]) -> float:
    """User and system time of the processes and all that they started."""
    wanted = {process.pid for process in processes}
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            parents[int(stat.parent.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / CLOCK_TICKS)
    total = 0.0
    for pid, (_, seconds) in parents.items():
        at: int | None = pid
        while at is not None and at not in wanted:
            at = parents[at][0] if at in parents else None
        total += seconds if at is not None else 0.0
    return total


def load(port: int, body: Path, *, connections: int, streams: int, requests: int) -> tuple[float, float]:
    """(requests a second, median latency in ms) as h2load sees them. RuntimeError when a request failed."""
    with tempfile.NamedTemporaryFile() as log:
        command = ["h2load", "-c", str(connections), "-m", str(streams), "-n", str(requests), "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"--log-file={log.name}"]
        output = subprocess.run(
            [*command, f"http://127.0.0.1:{port}{PATH}"], capture_output=True, text=True, check=True
        ).stdout
        latencies = [int(line.split("\t")[2]) / 1000 for line in Path(log.name).read_text().splitlines()]
    succeeded = re.search(r"(\d+) succeeded", output)
    if succeeded is None or int(succeeded[1]) != requests:
        raise RuntimeError(f"requests failed:\n{output}")
    rate = re.search(r"([\d.]+) req/s", output)
    assert rate is not None
    return float(rate[1]), statistics.median(latencies)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def contestants(folder: Path, peers: list[str]) -> Iterator[list[Contestant]]:
    """The service, the gateway before it, and the peers, all started."""
    model = folder / "mlp.onnx"
    write_mlp(model)
    store = folder / "store"
    python = sys.executable
    added = [python, "-m", "ortmesh.cli", "models", "add", str(model), "--name", "mlp", "--family", "nlp"]
    environment = {**os.environ, "ORTMESH_MODELS": str(store)}
    subprocess.run(added, env=environment, check=True, stdout=subprocess.DEVNULL)
    ports = [free_port() for _ in range(2 + len(peers))]
    service = [
        python,
        "-m",
        "ortmesh_nlp",
        "--listen",
        f"127.0.0.1:{ports[0]}",
        "--adapter",
        "native",
        "--threads",
        "1",
    ]
    gateway = [python, "-m", "ortmesh.cli", "gateway", "--listen", f"127.0.0.1:{ports[1]}"]
    gateway += ["--backend", f"nlp=127.0.0.1:{ports[0]}", "--runtime", str(folder / "gateway")]
    commands = [("service, direct", service), ("through the gateway", gateway)]
    for peer, port in zip(peers, ports[2:], strict=True):
        name, _, command = peer.partition("=")
        commands.append((name, shlex.split(command.format(port=port, model=model))))
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _, command in commands]
    try:
        made = [
            Contestant(name, port, [process]) for (name, _), port, process in zip(commands, ports, running, strict=True)
        ]
        made[1].processes = [running[0], running[1]]
        for contestant in made:
            until_it_answers(contestant)
        yield made
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(30)


def until_it_answers(contestant: Contestant, seconds: float = 60) -> None:
    """Returns when ModelInfer gives 16 numbers; the check that h2load does not make."""
    import grpc

    framed = request_body()
    with grpc.insecure_channel(f"127.0.0.1:{contestant.port}") as channel:
        call: Any = channel.unary_unary(PATH, response_deserializer=oip("ModelInferResponse").FromString)
        until = time.monotonic() + seconds
        while True:
            try:
                answer = call(framed[5:], timeout=5)
                break
            except grpc.RpcError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
    assert list(answer.outputs[0].shape) == [1, 16], answer
    assert len(answer.raw_output_contents[0]) == 64


def measure(contestant: Contestant, body: Path, requests: int) -> None:
    """One round."""
    before = cpu_seconds(contestant.processes)
    rate, _ = load(contestant.port, body, connections=4, streams=16, requests=requests)
    contestant.costs.append((cpu_seconds(contestant.processes) - before) / requests * 1e6)
    contestant.rates.append(rate)
    _, alone = load(contestant.port, body, connections=1, streams=1, requests=1000)
    contestant.alone_ms.append(alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        parser.error("h2load is missing: install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        body.write_bytes(request_body())
        with contestants(Path(folder), arguments.peer) as made:
            for number in range(arguments.rounds + 1):
                for contestant in made:
                    measure(contestant, body, arguments.requests if number else arguments.requests // 10)
                    if not number:  # the first round only warms up
                        contestant.costs.clear()
                        contestant.rates.clear()
                        contestant.alone_ms.clear()
            report(made)


def report(made: list[Contestant]) -> None:
    """Medians over the rounds, and each against the first contestant."""
    base = statistics.median(made[0].costs)
    print(f"{'contestant':24}{'µs CPU/request':>16}{'ratio':>8}{'requests/s':>12}{'alone p50 ms':>14}")
    for contestant in made:
        cost, rate = statistics.median(contestant.costs), statistics.median(contestant.rates)
        alone = statistics.median(contestant.alone_ms)
        print(f"{contestant.name:24}{cost:16.1f}{cost / base:8.2f}{rate:12.0f}{alone:14.3f}")


if __name__ == "__main__":
    main()
