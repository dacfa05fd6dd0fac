"""Sweeps: many runs of one config, from the list of points to the table of results."""
