"""Mistakes: what is wrong in a card, in words: the key, what was found there, what was expected. Stage: store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ortmesh.near import near

MOST_TOLD = 5
LONGEST_FOUND = 60
"""Characters of what was found."""
KEYS = "keys with values"
EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), KEYS),
    "string_type": "a text",
    "invalid_key": "keys that are texts: write them with quotes",
}
"""By pydantic's names of errors; those whose words depend on the bound are in `_bound`."""
BOUNDS = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "less than {}"),
    "too_short": ("min_length", "at least {} of them"),
    "too_long": ("max_length", "at most {} of them"),
    "string_too_short": ("min_length", "a text of at least {} characters"),
    "string_too_long": ("max_length", "a text of at most {} characters"),
    "literal_error": ("expected", "{}"),
}
"""pydantic's name of an error: the name of its bound, and words around it."""


def mistakes_in_words(error: ValidationError, kind: type[BaseModel], patterns: Mapping[str, str] | None = None) -> str:
    """What is wrong with each key, one line for all. `kind` is what was validated, `patterns` the words for the regular
    expressions in it."""
    every = error.errors(include_url=False)
    told = [_in_words(each, kind, patterns or {}) for each in every[:MOST_TOLD]]
    more = len(every) - MOST_TOLD
    return "; ".join(told) + (f"; and {more} mistakes more" if more > 0 else "")


def yaml_in_words(error: yaml.YAMLError) -> str:
    """Where a text stops being YAML, and why, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it is no YAML: " + " ".join(str(error).split())
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: it is no YAML: {error.problem}"


def no_such(what: str, name: str, names: Collection[str]) -> str:
    """That there is no such thing of a kind, with the nearest one there is, else with all."""
    if close := near(name, names):
        begun = [each for each in close if each.startswith(name.lower())]
        return f"there is no such {what}; did you mean {' or '.join(begun or close[:1])}?"
    return f"there is no such {what}; there are {', '.join(names)}"


def _in_words(error: ErrorDetails, kind: type[BaseModel], patterns: Mapping[str, str]) -> str:
    key = ".".join(map(str, error["loc"]))
    return f"{key}: {_what(error, kind, patterns)}" if key else _what(error, kind, patterns)


def _what(error: ErrorDetails, kind: type[BaseModel], patterns: Mapping[str, str]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return no_such("key", str(error["loc"][-1]), _keys_at(kind, error["loc"][:-1]))
        case "missing":
            return "it is missing"
        case "value_error":  # of a validator of ours, in words already
            return str(error["ctx"]["error"])
        case "json_invalid":
            return f"it is no JSON: {error['ctx']['error']}"
    return f"found {shown(error['input'])}, expected {_expected(error, patterns)}"


def _expected(error: ErrorDetails, patterns: Mapping[str, str]) -> str:
    kind, given = error["type"], error.get("ctx", {})
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        return words.format(given[bound])
    if kind == "string_pattern_mismatch":
        pattern = str(given["pattern"])
        return patterns.get(pattern, f"a text of the form {pattern}")
    if kind == "string_type" and isinstance(error["input"], int | float) and not isinstance(error["input"], bool):
        return f'a text: write "{error["input"]}", with quotes'
    return EXPECTED.get(kind) or error["msg"].removeprefix("Input should be ")


def shown(found: Any) -> str:
    """As JSON, which is YAML too; what JSON does not know, such as a date, without quotes."""
    if found is None:
        return "nothing"
    text = json.dumps(found, ensure_ascii=False, default=str) if isinstance(found, _WRITTEN) else str(found)
    text = text.encode(errors="backslashreplace").decode()  # JSON and YAML can write what no terminal prints
    return text if len(text) <= LONGEST_FOUND else f"{text[:LONGEST_FOUND]}…"


_WRITTEN = (str, int, float, list, dict)


def _keys_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that the part of a card at a place may have."""
    at: Any = kind
    for part in place:
        at = _inside(at, part)
    return list(at.model_fields) if _is_model(at) else []


def _inside(kind: Any, part: int | str) -> Any:
    """The type of a part: a model's field, or the values of a list or of a dictionary."""
    if _is_model(kind):
        field = kind.model_fields.get(str(part))  # none where a place names one of several types
        return _unwrapped(field.annotation) if field is not None else None
    arguments = get_args(kind)
    return _unwrapped(arguments[-1]) if arguments else None


def _unwrapped(kind: Any) -> Any:
    """A type without its `| None`."""
    if get_origin(kind) in (list, dict, tuple):
        return kind
    return next((each for each in get_args(kind) if each is not type(None)), kind)


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
