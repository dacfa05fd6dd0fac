"""Measures speed in processes that take turns: this project's network, its ceilings, and its peers.

The measuring process imports neither jax nor torch; it shares only `protocol` with those that it measures.
"""
