"""Starts the vision service: `python -m ortmesh_vision`."""

from __future__ import annotations

from ortmesh.serving.host import main
from ortmesh_vision.service import FAMILY, SERVICE, methods

if __name__ == "__main__":
    main(FAMILY, SERVICE, methods)
