"""The peer: faster-whisper in a process of its own, in an environment of its own: a line of JSON asks, a line answers.

    python peer.py FOLDER THREADS

`{"path": …, "batched": …}` is answered by `{"text": …, "seconds": …}`. It imports nothing of ours.
"""

import importlib
import json
import sys
import time
from typing import Any

BATCH = 8
"""As many windows side by side as BatchedInferencePipeline takes by default."""


def main() -> None:
    """Answers until its input ends."""
    folder, threads = sys.argv[1], int(sys.argv[2])
    library: Any = importlib.import_module("faster_whisper")
    model = library.WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads)
    batched = library.BatchedInferencePipeline(model=model)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        if asked["batched"]:
            segments, _ = batched.transcribe(asked["path"], batch_size=BATCH)
        else:
            segments, _ = model.transcribe(asked["path"])
        text = " ".join(segment.text.strip() for segment in segments)  # decoded while they are read
        print(json.dumps({"text": text, "seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
