"""Runtime: the folder that the gateway and the keeper of Envoy share, and what lies in it. Stage: gateway."""

from __future__ import annotations

import os
from pathlib import Path

from ortmesh.config import GATEWAY_ROUTES, GATEWAY_SOCKETS, MAX_SOCKET_PATH


class Runtime:
    """The folder's paths. OSError when it can't be made, or is too deep for sockets."""

    def __init__(self, chosen: Path) -> None:
        folder = chosen.absolute()
        directory, admin = GATEWAY_SOCKETS
        room = MAX_SOCKET_PATH - len(f"/{directory}")
        if len(os.fsencode(folder)) > room:
            raise OSError(f"{folder}: the folder of the sockets has at most {room} bytes, see ORTMESH_GATEWAY_RUNTIME")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.bootstrap = folder / "envoy.json"
        """What Envoy is started with."""
        self.routes = folder / GATEWAY_ROUTES
        """What Envoy watches."""
        self.admin = folder / admin
        """Where Envoy listens for its administration."""
        self.directory = folder / directory
        """Where the gateway answers what no service does."""
