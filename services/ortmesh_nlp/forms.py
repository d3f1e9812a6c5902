"""Forms: what a text must look like, as masks over the vocabulary. Stage: task.

By llguidance (https://github.com/guidance-ai/llguidance), which the engines of the field use: JSON schemas, regular
expressions and Lark grammars, with bounds on what a grammar may cost.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
from llguidance import LLMatcher, LLParserLimits

from ortmesh.errors import BadInput, ExecutorFailed
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.types import Array
from ortmesh_nlp.chat import Language
from ortmesh_nlp.grammars import outside, prepared
from ortmesh_nlp.schemas import COMPACT, NOTHING, check_embedded, checked_schema, with_options

MOST_LINES = 1000
"""Of a grammar: each rule is a step on the compiler's stack, and chains of 3,000 overflow a usual one, which ends the
process."""
INTERSECTION = "&"
"""Between patterns that a text must match at once. What recognizes them is multiplied before any limit is looked at:
two patterns of a dozen bytes each can take all memory."""
PARAMETERS = "::"
"""Between a rule and its parameter. A rule that may be empty is taken with all its values at once, in quadratic time
before any limit is looked at: 300 values take 0.6 s, within a text too, where the engine waits for it, and 16 bits of
them never end."""
UNFORCED = '\n%llguidance {"no_forcing": true}'
"""Behind every grammar: where only one byte may follow, the compiler writes it itself, and never ends where one
terminal takes what the next one waits for, as in `/a+/ "a"`. Regular expressions have one terminal, and those of a
schema begin unlike each other, unless its options say what is between them."""
STACK_BYTES = 256 << 20
"""Of the thread that compiles, all the same; only what is used of it is memory."""
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=50_000,
    max_lexer_states=50_000,
    step_max_items=20_000,
    max_grammar_size=100_000,
)
"""A fifth to a half of the library's own: a step of one text holds up all others, and these keep it below 0.1 s."""
MAX_BYTES = {"json_schema": 65_536, "regex": 4_096, "grammar": 65_536}
SILENT = 0
MOST_TOLD = 300
"""Characters of a reason, or of what is before it: either may hold the caller's text."""
REASON = "error: "
PLACE = re.compile(r"^(?:at )?\d+\(\d+\): ")
"""As the library writes them: line(column)."""
_STARTING = threading.Lock()
"""The size of a stack is a setting of the process."""


class Form:
    """Where one text stands in its form: `ortmesh.serving.executor.engine.ask.Grammar`."""

    def __init__(self, matcher: LLMatcher, field: str, ends: Sequence[int]) -> None:
        """`field` is the request's, which is named when it turns out that the form can't be followed; `ends` are the
        tokens that end a text."""
        self._matcher = matcher
        self._field = field
        self._ends = ends

    def allowed(self) -> Array:
        """Bits of the tokens that may come next, uint32: one that ends the text only where it is whole then. BadInput
        when the form has become too costly, or goes on after such a token only."""
        with _sound():
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
            _check(self._matcher, self._field)
            early = [end for end in self._ends if bits[end // 32] >> (end % 32) & 1 and not self._whole_after(end)]
        if early:
            bits = bits.copy()
            for end in early:
                bits[end // 32] &= ~np.uint32(1 << end % 32)
            if not bits.any():
                raise BadInput(self._field, "can't be used: it goes on after a token that ends the text")
        return bits

    def _whole_after(self, end: int) -> bool:
        """A grammar may name tokens that end a text, also within it."""
        if self._matcher.is_accepting():
            return True
        ended = self._matcher.deep_copy()
        return ended.consume_token(end) and ended.is_accepting()

    def accept(self, token: int) -> bool:
        """A token has come; True when nothing may follow."""
        with _sound():
            self._matcher.consume_token(token)
            _check(self._matcher, self._field)
            return bool(self._matcher.is_stopped())


@contextmanager
def _sound() -> Iterator[None]:
    """A panic of the library is no `Exception`, and would end the engine with all texts."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        raise ExecutorFailed("the text's form could not be followed") from panic


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
    if kind == "json_schema":
        written = checked_schema(written)
    if kind == "grammar":
        if (lines := written.count("\n")) > MOST_LINES:
            raise BadInput(kind, f"{lines} lines: expected at most {MOST_LINES}")
        if INTERSECTION in outside(written):
            raise BadInput(kind, f"can't be used: patterns that meet ({INTERSECTION}) are not followed")
        if PARAMETERS in outside(written):
            raise BadInput(kind, f"can't be used: rules with parameters ({PARAMETERS}) are not followed")
        check_embedded(written)
        written = prepared(written, language.added) + UNFORCED
    return _in_large_stack(lambda: _compiled(kind, written, language))


def _compiled(kind: str, written: str, language: Language) -> LLMatcher:
    with _sound():
        matcher = LLMatcher(language.vocabulary, _grammar(kind, written), log_level=SILENT, limits=LIMITS)
        _check(matcher, kind)
        trial = matcher.deep_copy()
    Form(trial, kind, language.facts.eos_token_ids).allowed()
    return matcher


def _in_large_stack(compile_it: Callable[[], LLMatcher]) -> LLMatcher:
    """In a thread of its own."""
    made: Future[LLMatcher] = Future()

    def run() -> None:
        try:
            made.set_result(compile_it())
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            made.set_exception(error)

    with _STARTING:
        usual = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=run, name="ortmesh-form")
            thread.start()
        finally:
            threading.stack_size(usual)
    thread.join()
    return made.result()


def _grammar(kind: str, written: str) -> str:
    try:
        if kind == "regex":
            if (len(written) - len(written.rstrip("\\"))) % 2:
                raise BadInput(kind, "can't be used: it ends in a backslash that escapes nothing")
            return str(LLMatcher.grammar_from_regex(written))
        if kind == "grammar":
            return str(LLMatcher.grammar_from_lark(written))
        if (with_own := with_options(written)) is not None:
            return str(LLMatcher.grammar_from_lark(f"start: %json {with_own}{UNFORCED}"))
        return str(LLMatcher.grammar_from_json_schema(written, defaults=COMPACT))
    except ValueError as error:
        raise BadInput(kind, f"can't be used: {_reason(str(error), kind)}") from None


def _check(matcher: LLMatcher, field: str) -> None:
    if matcher.is_error():
        reason = _reason(matcher.get_error(), field)
        raise BadInput(field, NOTHING if "NoExtension" in reason else f"can't be used: {reason}")


def _reason(told: str, kind: str) -> str:
    """The library's first line, with the reason that the parser of regular expressions tells in a later one. Places are
    told for grammars only: of another form they are places in the grammar that was made of it."""
    first, *others = told.strip().split("\n")
    reasons = [line.removeprefix(REASON) for line in others if line.startswith(REASON)]
    if reasons and kind == "regex":
        return reasons[-1][:MOST_TOLD]
    if reasons:
        first = (first.removesuffix("regex parse error:")[:MOST_TOLD] or "a pattern: ") + reasons[-1]
    if kind != "grammar":
        first = PLACE.sub("", first)
    return first[: 2 * MOST_TOLD]
