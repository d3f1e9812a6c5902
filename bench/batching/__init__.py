"""Policies of batching, compared: in a deterministic simulation of the real pile, and through a running service."""
