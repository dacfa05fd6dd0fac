"""A training run: wiring, loop, recovery, run folder."""
