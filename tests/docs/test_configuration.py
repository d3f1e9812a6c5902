"""docs/configuration.md has every setting, with its variable, its default and its meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from ortmesh.config import MIB, GatewaySettings, ServiceSettings, Settings, StoreSettings, TelemetrySettings
from tests.docs.pages import DOCS, table_rows

PAGE = DOCS / "configuration.md"
ALL = (StoreSettings, ServiceSettings, GatewaySettings, TelemetrySettings)


@pytest.mark.parametrize("settings", ALL)
def test_every_setting_is_there_with_its_default_and_meaning(settings: type[Settings]) -> None:
    written = PAGE.read_text(encoding="utf-8").splitlines()
    missing = [row for row in rows(settings) if row not in written]
    assert not missing, "write these lines into the page:\n" + "\n".join(missing)


def test_no_setting_is_there_that_does_not_exist() -> None:
    known = {variable for settings in ALL for variable in settings.variables().values()}
    written = {row[0].strip("`") for row in table_rows(PAGE) if row[0].startswith("`ORTMESH_")}
    assert written == known | {"ORTMESH_ADDRESS"}


def rows(settings: type[Settings]) -> list[str]:
    """The table's lines, made from the class."""
    fields = settings.model_fields
    return [
        f"| `{variable}` | {_default(fields[name])} | {' '.join((fields[name].description or '').split())} |"
        for name, variable in settings.variables().items()
    ]


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "see right"
    if field.is_required():
        return "required"
    return _shown(field.default)


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if value == ():
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and value >= MIB and value % MIB == 0:
        return f"{value // MIB} MiB (`{value}`)"
    return f"`{Path(value)}`" if isinstance(value, Path) else f"`{value}`"
