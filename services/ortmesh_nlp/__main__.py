"""`python -m ortmesh_nlp`: the language service."""

from ortmesh.serving.host import main
from ortmesh_nlp.service import FAMILY, SERVICE, methods

if __name__ == "__main__":
    main(FAMILY, SERVICE, methods)
