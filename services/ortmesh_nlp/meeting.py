"""Meeting: how many patterns of a schema one string must match at once. Stage: task.

Where `allOf` or a reference with more beside it puts schemas together, their patterns are intersected, and what the
compiler does then takes twice as long and twice the memory, or more, with each: fourteen take 4 s, a few more never
end, and nothing ends them but the process. Most intersections of four or more it refuses at last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

MOST_MEETING = 8
PATTERNS = ("pattern", "format")
PASSES = 6
"""Through schemas that refer to each other in circles: in each, what comes round again counts as in the one before. As
places have the last of their names alone, a pattern in a circle may count once more each time: what is few after all of
them is let through, though the next might find more."""
ANNOTATIONS = {"$defs", "definitions", "$id", "$schema", "$comment", "title", "description", "default", "examples"}
"""What may stand beside a reference and adds nothing to it."""
ITSELF, ANY = "", "*"
"""Places: the string that a schema is of, and what is in an array or an object under no name of its own."""
PARTS_OF_ANY = ("items", "additionalProperties", "unevaluatedProperties", "additionalItems", "unevaluatedItems")
Meetings = dict[str, int]
"""How many patterns meet at most, by the last name of the place."""


class TooMany(ValueError):
    """More patterns meet than may, or a reference is of a kind that is not followed."""


def may_meet(objects: Iterable[Mapping[str, Any]]) -> bool:
    """True when any of a schema's objects puts schemas together, and any has a pattern."""
    merges = patterned = False
    for each in objects:
        merges = merges or "allOf" in each or bool("$ref" in each and each.keys() - ANNOTATIONS - {"$ref"})
        patterned = patterned or any(isinstance(each.get(key), str) for key in PATTERNS)
    return merges and patterned


def must_meet_few(schema: Any) -> None:
    """TooMany where more than `MOST_MEETING` patterns may meet in one string of a schema."""
    counter = _Counter(schema)
    try:
        for _ in range(PASSES):
            if counter.count():
                return
    except RecursionError:
        raise TooMany from None


class _Counter:
    """Counts in one schema. What is alternative counts as the most of it, what is put together as the sum."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[str, Meetings] = {}
        """By reference, in this pass; while one is followed, of the pass before."""
        self._before: dict[str, Meetings] = {}

    def count(self) -> bool:
        """One pass; True when it found what the one before did."""
        self._before, self._known = self._known, {}
        self.of(self._root)
        return self._known == self._before

    def of(self, schema: Any) -> Meetings:
        """Of a schema and all that is in it."""
        if not isinstance(schema, dict):
            return {}
        own: Meetings = {ITSELF: sum(isinstance(schema.get(key), str) for key in PATTERNS)}
        parts = [own, _most(self._inside(schema))]
        parts += [self.of(each) for each in _list(schema.get("allOf"))]
        parts += [_most(self.of(each) for each in _list(schema.get(key))) for key in ("anyOf", "oneOf")]
        if isinstance(schema.get("$ref"), str):
            parts.append(self._referred(schema["$ref"]))
        found = _sum(parts)
        anywhere = found.get(ANY, 0)
        if any(count + (anywhere if place != ANY else 0) > MOST_MEETING for place, count in found.items()):
            raise TooMany
        return found

    def _inside(self, schema: Mapping[str, Any]) -> Iterator[Meetings]:
        """Of what a schema says of properties and items, by their names."""
        for name, each in _dict(schema.get("properties")).items():
            yield _placed(self.of(each), name)
        others = [*_dict(schema.get("patternProperties")).values(), *_list(schema.get("prefixItems"))]
        others += [schema.get(key) for key in PARTS_OF_ANY]
        for each in others:
            yield _placed(self.of(each), ANY)

    def _referred(self, reference: str) -> Meetings:
        if reference not in self._known:
            self._known[reference] = self._before.get(reference, {})
            self._known[reference] = self.of(self._found(reference))
        return self._known[reference]

    def _found(self, reference: str) -> Any:
        """What a reference within the schema means. TooMany for one of another kind: what it brings can't be said."""
        begin, *steps = unquote(reference).split("/")
        if begin != "#":
            raise TooMany
        value: Any = self._root
        for step in steps:
            try:
                value = (
                    value[int(step)] if isinstance(value, list) else value[step.replace("~1", "/").replace("~0", "~")]
                )
            except (ValueError, LookupError, TypeError):
                raise TooMany from None
        return value


def _placed(inside: Meetings, name: str) -> Meetings:
    """As seen from the schema that has it under a name."""
    return _most([{name: inside.get(ITSELF, 0)}, {place: count for place, count in inside.items() if place != ITSELF}])


def _most(several: Iterable[Meetings]) -> Meetings:
    found: Meetings = {}
    for each in several:
        for place, count in each.items():
            if count > found.get(place, 0):
                found[place] = count
    return found


def _sum(several: Iterable[Meetings]) -> Meetings:
    found: Meetings = {}
    for each in several:
        for place, count in each.items():
            found[place] = found.get(place, 0) + count
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
