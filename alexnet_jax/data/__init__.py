"""Data: making, opening and describing datasets, and the pipeline that feeds training."""
