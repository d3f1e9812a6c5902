"""Texts of mixed lengths through the running service, against the best grouping of the same texts by a bare session."""
