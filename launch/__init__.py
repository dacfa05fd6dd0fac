"""Starts runs: on this machine, on clusters."""
