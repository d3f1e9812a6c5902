"""The gRPC front: the table of methods, two adapters, admission, health, drain."""
