"""The batcher: a pile of prepared items a model, and the policy that chooses the next batch.

It knows neither asyncio, gRPC nor ONNX Runtime.
"""

from ortmesh.serving.batcher.costs import Costs, Grid
from ortmesh.serving.batcher.pile import Pile
from ortmesh.serving.batcher.policy import ArrivalOrder, CostAware, Policy

__all__ = ["ArrivalOrder", "CostAware", "Costs", "Grid", "Pile", "Policy"]
