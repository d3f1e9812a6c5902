"""What runs models: cards and store, models with versions and leases, the batcher, the executors, OIP."""

import os

# ONNX Runtime would report its use to its makers; it reads this when it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
