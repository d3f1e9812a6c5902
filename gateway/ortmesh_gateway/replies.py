"""Replies: what Envoy itself answers, as gRPC callers and those of our services expect it. Stage: gateway."""

from __future__ import annotations

import base64
from typing import Any

from ortmesh.errors import OrtmeshError, Overloaded, Unreachable
from ortmesh.front.status import Failure

Json = dict[str, Any]

GRPC_CODES = {400: 3, 408: 4, 413: 8}
"""INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED. Envoy's own mapping says INTERNAL, UNKNOWN and UNKNOWN."""
OVERFLOWS = ("UO",)
"""Flags of what Envoy refuses because a cluster has too much in flight; Envoy's own mapping says UNAVAILABLE."""
RETRY_SECONDS = 1.0
"""When to come back. Envoy knows no pace at which calls end; a replica that is well again is found within 0.25 s, and
one that was killed is there after a second or two."""
TOO_MANY = Overloaded("as many calls are in flight as the services take", retry_after_seconds=RETRY_SECONDS)
TOO_MUCH = Overloaded("the gateway's memory is taken by other calls", retry_after_seconds=RETRY_SECONDS)
AWAY = Unreachable("the service can't be reached", retry_after_seconds=RETRY_SECONDS)


def local_replies() -> Json:
    """Envoy's LocalReplyConfig. The first mapper that matches counts."""
    any_flag: Json = {"response_flag_filter": {}}
    return {
        "mappers": [
            _refusal({"response_flag_filter": {"flags": OVERFLOWS}}, TOO_MANY),
            *(_with_code(status, code) for status, code in GRPC_CODES.items()),
            # A cluster's failures have a flag each; what Envoy refuses near the bound of its heap has none.
            _refusal({"and_filter": {"filters": [_status(503), any_flag]}}, AWAY),
            _refusal(_status(503), TOO_MUCH),
        ]
    }


def _refusal(refused: Json, error: OrtmeshError) -> Json:
    """The error as a service would send it. Libraries refuse details whose message is not the reply's: both are set."""
    failure = Failure.of(error)
    return {
        "filter": refused,
        "body": {"inline_string": failure.message},
        "headers_to_add": [_header("grpc-status", str(failure.code)), *(_header(*each) for each in failure.trailers)],
    }


def _with_code(status: int, code: int) -> Json:
    mapper: Json = {"filter": _status(status), "headers_to_add": [_header("grpc-status", str(code))]}
    if status == 413:
        limit = "%METADATA(ROUTE:ortmesh:max_request_bytes)%"
        mapper["body_format_override"] = {
            "text_format_source": {"inline_string": f"the message is larger than the method's {limit} bytes"}
        }
    return mapper


def _status(status: int) -> Json:
    compared = {"op": "EQ", "value": {"default_value": status, "runtime_key": "unused"}}
    return {"status_code_filter": {"comparison": compared}}


def _header(key: str, value: str | bytes) -> Json:
    """Binary ones travel as base64."""
    text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return {"header": {"key": key, "value": text}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
