"""`python -m ortmesh_speech`: the speech service."""

from ortmesh.serving.host import main
from ortmesh_speech.service import FAMILY, SERVICE, methods

if __name__ == "__main__":
    main(FAMILY, SERVICE, methods)
