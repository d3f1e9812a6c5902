"""The kinds of load, each a function `load(door, seen, count)` that ends by itself."""
