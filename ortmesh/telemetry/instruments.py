"""Every metric of a process, in one list. Stage: shared.

`rpc.server.*` follow OpenTelemetry's conventions for RPC with the attributes `rpc.system`, `rpc.service`,
`rpc.method` and `rpc.grpc.status_code`; those of models carry `model` and `version`. `gen_ai.server.*` follow those for
generative AI, with their attributes beside these two.
"""

from __future__ import annotations

from ortmesh.telemetry.series import Instrument

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
MILLISECONDS = tuple(round(bound * 1000, 3) for bound in (*SECONDS, 300, 600))
BYTES = tuple(float(4**power) for power in range(3, 14))  # 64 B to 64 MiB
ROWS = tuple(float(2**power) for power in range(11))  # 1 to 1,024
FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
LATER_TOKENS_SECONDS = (
    *(0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
"""OpenTelemetry's bounds, and longer ones for prompts that a CPU reads, shorter ones for small models."""
SHARES = (0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75)

RPC_DURATION = Instrument(
    "rpc.server.duration", "ms", "Time from a call's arrival to its end", "histogram", MILLISECONDS
)
RPC_REQUEST_SIZE = Instrument(
    "rpc.server.request.size", "By", "Size of requests, all of a stream's", "histogram", BYTES
)
RPC_RESPONSE_SIZE = Instrument(
    "rpc.server.response.size", "By", "Size of answers, all of a stream's", "histogram", BYTES
)
IN_FLIGHT = Instrument("ortmesh.calls.in_flight", "{call}", "Calls that were admitted and have not ended", "updown")
QUEUE = Instrument("ortmesh.queue.duration", "s", "Time an item waited for an executor", "histogram", SECONDS)
COMPUTE = Instrument(
    "ortmesh.compute.duration",
    "s",
    "Time a batch took in the executor, without what others took in between",
    "histogram",
    SECONDS,
)
BATCH_SIZE = Instrument("ortmesh.batch.size", "{row}", "Rows of a batch", "histogram", ROWS)
BATCH_PADDING = Instrument("ortmesh.batch.padding", "1", "Share of a batch that was padding", "histogram", SHARES)
BATCH_COST = Instrument("ortmesh.batch.cost", "s", "What a run of so many rows of a size takes, as known now", "gauge")
BATCH_BEST = Instrument("ortmesh.batch.best", "{row}", "Rows of the batch in which an item costs least", "gauge")
COST_FACTOR = Instrument("ortmesh.batch.cost.factor", "1", "How many times the first measurement a run takes", "gauge")
DROPPED = Instrument("ortmesh.items.dropped", "{item}", "Items dropped before they were computed", "counter")
FIRST_TOKEN = Instrument(
    "gen_ai.server.time_to_first_token",
    "s",
    "Time from a text's arrival to its first token",
    "histogram",
    FIRST_TOKEN_SECONDS,
)
LATER_TOKENS = Instrument(
    "gen_ai.server.time_per_output_token",
    "s",
    "Mean time between the tokens of a text that ended well",
    "histogram",
    LATER_TOKENS_SECONDS,
)
PROMPT_TOKENS = Instrument("ortmesh.tokens.prompt", "{token}", "Tokens of prompts", "counter")
GENERATED_TOKENS = Instrument("ortmesh.tokens.generated", "{token}", "Tokens that were generated", "counter")
TEXTS_RUNNING = Instrument("ortmesh.texts.running", "{text}", "Texts in progress", "updown")
TEXTS_ENDED = Instrument("ortmesh.texts.ended", "{text}", "Texts that ended, by why they did", "counter")
CACHE_TOKENS = Instrument("ortmesh.kv_cache.tokens", "{token}", "Tokens of the engine's budget", "gauge")
MODEL_STATE = Instrument("ortmesh.model.state", "", "1 for the state in which a model version is, else 0", "gauge")
MODEL_INFO = Instrument("ortmesh.model.info", "", "1 for each model version that is ready: on what it runs", "gauge")

WAITS = ("free", "busy", "passed_over")
"""The values of QUEUE's attribute `reason`: an executor waited for the item, all computed, others were chosen first."""
STATES = ("LOADING", "READY", "FAILED", "UNLOADING")
"""The values of MODEL_STATE's attribute `state`."""
SOURCES = ("computed", "cached")
"""The values of PROMPT_TOKENS' attribute `source`: what was computed, and what was there."""

CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""The canonical codes in the order of their numbers."""
NUMBER_OF_CODE = {name: number for number, name in enumerate(CODES)}
