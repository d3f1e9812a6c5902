"""The language service as it is, told to add up what its engine's parts take.

    python -m bench.generate.served TIMES [arguments of ortmesh_nlp]

The product has no metric for an engine's parts, so they are watched here, before it starts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.generate.times import Times
from bench.mixed.served import name_threads
from ortmesh.serving.host import main
from ortmesh_nlp.service import FAMILY, SERVICE, methods


def serve() -> None:
    """The service, until a signal."""
    path, *arguments = sys.argv[1:]
    times = Times()
    times.watch()
    times.tell(Path(path))
    name_threads()
    sys.argv = ["ortmesh_nlp", *arguments]
    main(FAMILY, SERVICE, methods)


if __name__ == "__main__":
    serve()
