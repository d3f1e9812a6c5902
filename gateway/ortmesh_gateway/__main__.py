"""The gateway's process: `python -m ortmesh_gateway --backend vision=unix:/run/v.sock`, beside the one of proxy.py."""

from ortmesh_gateway.command import main
from ortmesh_gateway.gateway import Gateway

if __name__ == "__main__":
    main("python -m ortmesh_gateway", "Answers for the mesh's models and routes their calls.", Gateway)
