"""A flood of calls with short deadlines, and one caller's bursts beside another's calls, over gRPC."""
