"""Grammars: Lark's notation as a caller writes it, made ready for the compiler. Stage: task.

After the library's own lexer (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md): what it takes for
comments, strings, patterns and JSON is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ortmesh.errors import BadInput
from ortmesh_nlp.schemas import COMPACT, OPTIONS

PART = re.compile(
    r"""
    (?:\#|//)[^\n]*                      # a comment
    | "(?:\\.|[^"\\\n])*"?               # a string; one without end is for the compiler to refuse
    | /(?:\\.|[^/\\])+/?                 # a pattern
    | (?P<mark><[^<>\s]+>)               # a token
    | (?P<json>%(?:json|regex|llguidance))[ \t\r\n]*
    """,
    re.VERBOSE,
)
NUMBERS = re.compile(r"<\[.*\]>")
"""Tokens by number."""
LONGEST = 100
"""Characters of a mark that is told."""


def prepared(grammar: str, tokens: Mapping[str, int]) -> str:
    """A grammar with its marks as numbers, since the compiler does not know the names, and compact JSON, unless a
    schema itself says how it is to be written. BadInput for a mark that is not in `tokens`."""
    written, at = "", 0
    while (part := PART.search(grammar, at)) is not None:
        written += grammar[at : part.start()]
        at = part.end()
        if part["mark"]:
            written += _numbered(part["mark"], tokens, grammar, part.start())
            continue
        written += part[0]
        if part["json"]:
            try:
                value, end = json.JSONDecoder().raw_decode(grammar, at)
            except (ValueError, RecursionError):
                break  # the compiler refuses it
            written += _compact(grammar[at:end], value) if part["json"] == "%json" else grammar[at:end]
            at = end
    return written + grammar[at:]


def _numbered(mark: str, tokens: Mapping[str, int], grammar: str, at: int) -> str:
    """As long as it was where it can be: the compiler tells places."""
    if mark in tokens:
        return f"<[{tokens[mark]}]>".ljust(len(mark))
    if NUMBERS.fullmatch(mark):
        return mark
    line, column = grammar.count("\n", 0, at) + 1, at - grammar.rfind("\n", 0, at)
    raise BadInput("grammar", f"can't be used: at {line}({column}): the model has no mark {mark[:LONGEST]}")


def outside(grammar: str) -> str:
    """A grammar without its comments, strings and patterns: what is left is its own signs and names."""
    return PART.sub(" ", grammar)


def _compact(written: str, schema: Any) -> str:
    own = schema.get(OPTIONS, {}) if isinstance(schema, dict) else None
    if not isinstance(own, dict):
        return written
    options = f"{json.dumps(OPTIONS)}: {json.dumps({**COMPACT, **own})}"
    return f"{written.rstrip()[:-1]}{', ' if schema else ''}{options}}}"  # the last of equal keys counts
