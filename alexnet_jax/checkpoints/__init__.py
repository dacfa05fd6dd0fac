"""Checkpoints: written and read by Orbax, proved by a hash for each array."""
