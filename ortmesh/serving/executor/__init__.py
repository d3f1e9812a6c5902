"""Executors: each runs one model version on one device, in a thread of its own."""
