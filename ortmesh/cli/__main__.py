"""`python -m ortmesh.cli`: the command where its script is not on the PATH."""

from ortmesh.cli import main

if __name__ == "__main__":
    main()
