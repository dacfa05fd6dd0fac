"""Configs and runs as the tests use them: of the tiny dataset, 40 training images in 3 classes, on two devices."""

from alexnet_jax.training.build import build_run
from alexnet_jax.training.config import make_config
from alexnet_jax.training.validation import validate_config


def config_with(dataset='tiny', *, mesh=(1, 2), **values):
    """The validated recipe for `dataset` with other values."""
    config = make_config(dataset, mesh=mesh)
    config.update({'batch_size': 8} | values)
    return validate_config(config)


def run_with(*, examples=40, num_classes=3, **values):
    """The run of `config_with(**values)`."""
    return build_run(config_with(**values), num_classes=num_classes, examples=examples)
