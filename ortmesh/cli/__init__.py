"""The `ortmesh` command: one file a subcommand, listed in `app`. Stage: command line."""

from __future__ import annotations

import sys


def main() -> None:
    """The command's entry. Exits 1 when its packages are missing: the base install is the client alone."""
    try:
        from ortmesh.cli.app import app
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("ortmesh"):
            raise
        sys.exit(f"the ortmesh command needs {error.name}: pip install '.[all]' in the checkout")
    app()
