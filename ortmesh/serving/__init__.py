"""What runs models: cards and store, models with versions and leases, the batcher, the executors, OIP."""
