"""Forms: what a text must look like, as masks over the vocabulary. Stage: task.

By llguidance (https://github.com/guidance-ai/llguidance), which the engines of the field use: JSON schemas, regular
expressions and Lark grammars, with bounds on what a grammar may cost.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLMatcher, LLParserLimits

from ortmesh.errors import BadInput, ExecutorFailed
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.types import Array
from ortmesh_nlp.chat import Language

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

MAX_BYTES = {"json_schema": 65_536, "regex": 4_096, "grammar": 65_536}
SILENT = 0
COMPACT: JsonCompileOptions = {"whitespace_flexible": False}
"""Else a small model may write white space for ever."""


class Form:
    """Where one text stands in its form: `ortmesh.serving.executor.engine.ask.Grammar`."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self) -> Array:
        """Bits of the tokens that may come next, uint32. ExecutorFailed when the form has become too costly."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        self._check()
        return bits

    def accept(self, token: int) -> bool:
        """A token has come; True when nothing may follow."""
        self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ExecutorFailed(f"the text's form can't be followed: {_first_line(self._matcher.get_error())}")


def form_of(request: nlp_pb2.GenerateRequest, language: Language) -> LLMatcher | None:
    """The form that a request asks for, at its beginning; `deep_copy` gives one for each text. None for none.

    BadInput for what is none, can't be satisfied or costs too much. It takes milliseconds: call it in the pool.
    """
    kind = request.WhichOneof("form")
    if kind is None:
        return None
    written: str = getattr(request, kind)
    size = len(written.encode())
    if not 1 <= size <= MAX_BYTES[kind]:
        raise BadInput(kind, f"{size} bytes: expected 1 to {MAX_BYTES[kind]}")
    matcher = LLMatcher(language.vocabulary, _grammar(kind, written), log_level=SILENT, limits=LLParserLimits())
    _check(matcher, kind)
    matcher.deep_copy().compute_bitmask()
    _check(matcher, kind)
    return matcher


def _grammar(kind: str, written: str) -> str:
    try:
        if kind == "regex":
            return str(LLMatcher.grammar_from_regex(written))
        if kind == "grammar":
            return str(LLMatcher.grammar_from_lark(written))
        _must_be_a_schema(written)
        return str(LLMatcher.grammar_from_json_schema(written, defaults=COMPACT))
    except ValueError as error:
        raise BadInput(kind, f"can't be used: {_first_line(str(error))}") from None


def _must_be_a_schema(written: str) -> None:
    try:
        schema = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise BadInput("json_schema", f"is not JSON: {error}") from None
    if not isinstance(schema, (dict, bool)):
        raise BadInput("json_schema", "is no JSON schema: expected an object")


def _check(matcher: LLMatcher, field: str) -> None:
    if matcher.is_error():
        raise BadInput(field, f"can't be used: {_first_line(matcher.get_error())}")


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:300]
