"""Attacks on our own servers, on this machine only, bounded in count and time: what they cost and what they break."""
