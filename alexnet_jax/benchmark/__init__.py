"""Speed, measured in processes that take turns: this project's network, its ceilings, and what it is compared with.

The measuring process imports neither jax nor torch; `protocol` is all that it shares with those it measures.
"""
