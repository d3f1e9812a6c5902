"""Which text of a message is not UTF-8: parsers only say that the message is none. Stage: front."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ortmesh.front.scan import MOST_FIELDS, fields


def not_utf8(payload: bytes, described: Any) -> str | None:
    """The path of the first text that is not UTF-8, e.g. `texts[3]`; None when there is none, as far as it looks.

    `described` is the message's descriptor. Callers write such texts by accident: a lone surrogate of JavaScript's or
    Java's strings, or Latin-1.
    """
    return _Search(payload).within(0, len(payload), described)


class _Search:
    """A search that looks at so many fields and no more: there may be millions."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._left = MOST_FIELDS

    def within(self, start: int, end: int, described: Any) -> str | None:
        seen: Counter[str] = Counter()
        for number, at, after in fields(self._payload, start, end):
            self._left -= 1
            if self._left < 0:
                return None
            field = described.fields_by_number.get(number)
            if field is None:
                continue
            path = f"{field.name}[{seen[field.name]}]" if field.is_repeated else field.name
            seen[field.name] += 1
            if field.type == field.TYPE_STRING and not _is_utf8(self._payload[at:after]):
                return path
            inner = self.within(at, after, field.message_type) if field.type == field.TYPE_MESSAGE else None
            if inner is not None:
                return f"{path}.{inner}"
        return None


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
