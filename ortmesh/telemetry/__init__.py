"""What a process tells about itself: metrics, spans and logs, never payloads. Stage: shared.

front ── Rpc.begin/end ──┐                     ┌─► /metrics (Prometheus)
batcher ── ModelMeter ───┼─► series ─► snapshot ┤
models ── model_state ───┘                     └─► OTLP metrics
front, models ── spans of sampled traces ─────────► OTLP traces
"""

from ortmesh.telemetry.logs import configure_logging
from ortmesh.telemetry.model import ModelMeter
from ortmesh.telemetry.otlp import traces_endpoint
from ortmesh.telemetry.process import Telemetry
from ortmesh.telemetry.rpc import Rpc

__all__ = ["ModelMeter", "Rpc", "Telemetry", "configure_logging", "traces_endpoint"]
