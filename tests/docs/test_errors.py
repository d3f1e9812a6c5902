"""docs/errors.md has every reason of ErrorInfo with its code, and no other."""

from __future__ import annotations

from collections.abc import Iterator

from ortmesh.errors import OrtmeshError
from tests.docs.pages import DOCS, table_rows


def test_every_reason_is_there_with_its_code() -> None:
    rows = [row for row in table_rows(DOCS / "errors.md") if len(row) == 4 and row[0].startswith("`")]
    assert {(row[0].strip("`"), row[1].strip("`")) for row in rows} == {
        (error.reason, error.code) for error in _kinds(OrtmeshError)
    }


def _kinds(base: type[OrtmeshError]) -> Iterator[type[OrtmeshError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == "ortmesh.errors":
            yield kind
        yield from _kinds(kind)
