"""What a GPU does with our sessions: `python -m bench.gpu` checks and measures, through the product's classes."""
