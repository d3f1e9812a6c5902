"""Hush: what gRPC answers when it fails by itself, before it knows the handler. Stage: front.

`grpc.aio` then sends the exception's class and text, e.g. for a path that is not UTF-8; there is no setting for it.
From 1.84 on such a path even ends the server: hence `grpcio<1.84` in pyproject.toml.
"""

from __future__ import annotations

from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

UNEXPECTED = "Unexpected "
"""How gRPC begins the text of an exception that it did not expect."""
INTERNAL = 13

_send: Any = cygrpc._send_error_status_from_server


def hush() -> None:
    """From now on such answers say INTERNAL and nothing more; the log has the rest."""
    cygrpc._send_error_status_from_server = _send_hushed


async def _send_hushed(state: object, code: int, details: str, *rest: object) -> None:
    if details.startswith(UNEXPECTED):
        code, details = INTERNAL, "internal error"
    await _send(state, code, details, *rest)
