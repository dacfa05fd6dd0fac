"""Prepared datasets, and the pipeline that feeds training."""
