"""The gateway's process: `python -m ortmesh_gateway --backend vision=unix:/run/v.sock`, beside the one of proxy.py."""

import argparse

from ortmesh_gateway.command import main
from ortmesh_gateway.gateway import Gateway

if __name__ == "__main__":
    main(
        "gateway",
        argparse.ArgumentParser(
            prog="python -m ortmesh_gateway",
            description="Answers for the mesh's models and routes their calls. Every setting is also a variable.",
        ),
        Gateway,
    )
