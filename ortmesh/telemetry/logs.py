"""Logs: JSON lines for machines, plain lines for a terminal; the ids of sampled traces, no payloads. Stage: shared.

Whoever logs about a call gives its span: `log.warning("…", extra={"span": call.span})`. Other extras of simple types
become fields of the JSON line.
"""

from __future__ import annotations

import json as jsonlib
import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from opentelemetry import trace

MAX_TEXT = 2000
"""The longest message or field in characters: an exception's text may quote what a caller sent."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "span"}
_NOISY = ("asyncio", "grpc", "httpcore", "httpx", "opentelemetry", "watchfiles")
"""Loggers of libraries that tell nothing of use below a warning."""


def configure_logging(
    json: bool | None, level: str, *, service: str = "ortmesh", stream: TextIO | None = None
) -> logging.Handler:
    """Sends all logs of the process to `stream` (standard error); `json=None`: plain text on a terminal, else JSON.

    A second call replaces the first one's handler. Python's warnings are logged too.
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    handler = _Handler(stream)
    handler.setFormatter(JsonLines(service) if as_json else PlainLines())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    return handler


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second configuration finds it."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (RFC 3339, UTC), level, logger, message, service, and what else is known."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(record.getMessage()),
            "service": self._service,
            **_trace_ids(record),
            **dict(_extras(record)),
        }
        if record.exc_info and record.exc_info[1]:
            line["error"] = _exception(record.exc_info[1])
        return jsonlib.dumps(line, ensure_ascii=False)


class PlainLines(logging.Formatter):
    """A record for a person: `12:00:01.250 WARNING ortmesh.serving: message`, a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several with a traceback."""
        at = datetime.fromtimestamp(record.created).isoformat(sep=" ", timespec="milliseconds")[11:]
        line = f"{at} {record.levelname:7} {record.name}: {_cut(record.getMessage())}"
        ids = _trace_ids(record)
        if ids:
            line += f" (trace {ids['trace_id']})"
        if record.exc_info and record.exc_info[1]:
            error = _exception(record.exc_info[1])
            line += f"\n{error['stack']}{error['type']}: {error['message']}"
        return line


def _trace_ids(record: logging.LogRecord) -> dict[str, str]:
    """The ids of the span that was given with the record, when its trace is sampled."""
    span = getattr(record, "span", None)
    context = span.get_span_context() if isinstance(span, trace.Span) else None
    if context is None or not context.is_valid or not context.trace_flags.sampled:
        return {}
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


def _extras(record: logging.LogRecord) -> Iterator[tuple[str, str | int | float | bool]]:
    for name, value in vars(record).items():
        if name not in _STANDARD and isinstance(value, str | int | float | bool):
            yield name, _cut(value) if isinstance(value, str) else value


def _exception(error: BaseException) -> dict[str, str]:
    """An exception with its text cut: frames say where, and what a caller sent stays out of the log."""
    stack = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
    return {"type": type(error).__qualname__, "message": _cut(str(error)), "stack": stack}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"
