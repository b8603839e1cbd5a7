"""Checkpoints in memory: which networks a file holds, how they are made, kept and switched."""
