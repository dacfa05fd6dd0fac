"""Weights in and out: files of other programs, and of this one, as model.network.Network."""
