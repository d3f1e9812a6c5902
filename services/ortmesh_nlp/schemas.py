"""Schemas: what a JSON schema may ask of the compiler that makes a form of it. Stage: task."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ortmesh.errors import BadInput
from ortmesh_nlp.meeting import MOST_MEETING, TooMany, may_meet, must_meet_few

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

COMPACT: JsonCompileOptions = {"whitespace_flexible": False}
"""How JSON is written: else a small model may write white space for ever."""
OPTIONS = "x-guidance"
"""The compiler's, in a schema."""
MOST_REFERENCES = 1000
"""Each is a step on the compiler's stack."""
MOST_REMAINDERS = 10_000
"""Of all `multipleOf` together: the compiler goes through them one by one, and through a million takes 20 s."""
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
LEAST_BOUND = -(2**63) + 512
"""What is as little or less the compiler takes for the least integer of 64 bits, and looks for its opposite: between
two such bounds without end, until its stack and the process are no more."""
NOTHING = "nothing satisfies it"
EMBEDDED = re.compile(r"%json[ \t\r\n]*")
"""Before a schema in a grammar."""


def checked_schema(written: str) -> str:
    """A schema that is an object: `true` is an empty one. BadInput for what is no JSON schema, can't be satisfied by
    anything, or asks too much."""
    try:
        schema = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise BadInput("json_schema", f"is not JSON: {error}") from None
    if schema is True:
        return "{}"
    if schema is False:
        raise BadInput("json_schema", NOTHING)
    if not isinstance(schema, dict):
        raise BadInput("json_schema", "is no JSON schema: expected an object or a boolean")
    _check("json_schema", [schema])
    return written


def with_options(written: str) -> str | None:
    """A checked schema that says itself how it is to be compiled, and what it leaves open as in `COMPACT`; None for one
    that says nothing. Its outermost object alone is asked, as the compiler does."""
    own = json.loads(written).get(OPTIONS)
    if not isinstance(own, dict):
        return None
    options = json.dumps({**COMPACT, **own})
    return f'{written.rstrip()[:-1]}, "{OPTIONS}": {options}}}'  # the last of equal keys counts


def check_embedded(grammar: str) -> None:
    """BadInput when the schemas within a grammar ask too much; what is none is for the grammar's compiler to refuse."""
    _check("grammar", _embedded(grammar))


def _embedded(grammar: str) -> Iterator[Any]:
    for mark in EMBEDDED.finditer(grammar):
        try:
            yield json.JSONDecoder().raw_decode(grammar, mark.end())[0]
        except (ValueError, RecursionError):
            continue


def _check(field: str, schemas: Iterable[Any]) -> None:
    objects = list[dict[str, Any]]()
    for schema in schemas:
        of_this = list(_objects(schema))
        _check_meeting(field, schema, of_this)
        objects += of_this
    references = sum("$ref" in each for each in objects)
    if references > MOST_REFERENCES:
        raise BadInput(field, f"{references} references: expected at most {MOST_REFERENCES}")
    if any(_is_number(each.get(name)) and each[name] <= LEAST_BOUND for each in objects for name in BOUNDS):
        raise BadInput(field, f"can't be used: the bounds of a number must be greater than {LEAST_BOUND}")
    if math.lcm(*(_remainders(each.get("multipleOf")) for each in objects)) > MOST_REMAINDERS:
        reason = f"the least common multiple of their digits may be at most {MOST_REMAINDERS}"
        raise BadInput(field, f"its numbers of multipleOf take too long: {reason}")


def _check_meeting(field: str, schema: Any, objects: Iterable[dict[str, Any]]) -> None:
    try:
        if may_meet(objects):
            must_meet_few(schema)
    except TooMany:
        reason = (
            f"at most {MOST_MEETING} patterns and formats may meet in one string, by allOf and references within it"
        )
        raise BadInput(field, f"can't be used: {reason}") from None


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects in what was JSON, itself too."""
    open_ = [schema]
    while open_:
        value = open_.pop()
        if isinstance(value, dict):
            yield value
            open_ += value.values()
        elif isinstance(value, list):
            open_ += value


def _remainders(multiple: Any) -> int:
    """How many the compiler goes through for a `multipleOf`: its digits as a whole number, without zeros at the end. 1
    for what is no number."""
    if not _is_number(multiple) or (isinstance(multiple, float) and not math.isfinite(multiple)):
        return 1
    digits = Decimal(repr(multiple)).as_tuple().digits
    return int("".join(map(str, digits)).rstrip("0") or 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
