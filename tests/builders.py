"""Configs and runs as the tests use them: of the tiny dataset, 40 training images in 3 classes, on two devices."""

import math

import numpy as np

from alexnet_jax.model.alexnet import get_parameter_shapes
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


def draw_parameters(variant, *, num_classes, factor=2):
    """Float64 parameters of `factor` times the variant's initial spread, by NumPy: no program is compiled for them."""
    random, params = np.random.default_rng(0), {}
    shapes = get_parameter_shapes(variant, num_classes=num_classes)
    for layer in variant.layers:
        kernel, bias = (shapes[layer.name][name].shape for name in ('kernel', 'bias'))
        std = layer.init_std or (3 * math.prod(kernel[:-1])) ** -0.5
        biases = (layer.init_bias or 0) + random.normal(0, 0.1, bias)
        params[layer.name] = {'kernel': factor * random.normal(0, std, kernel), 'bias': factor * biases}
    return params
