"""Receptive fields against where NaN spreads to: a unit that reads a pixel that is no number is none itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model.alexnet import INTERMEDIATES, AlexNet, init_parameters
from alexnet_jax.model.network import NetworkName
from alexnet_jax.model.receptive_field import get_receptive_fields


@pytest.mark.parametrize(
    ('name', 'without'),
    [
        ('released', ()),  # padding on one side alone
        ('cifar10_18pct', ()),  # windows that reach past the edge
        # normalisation within maps, and a row that no pooling window reads
        pytest.param('released', ('overlap',), marks=pytest.mark.repeats),
        pytest.param('one_weird_trick', (), marks=pytest.mark.repeats),
    ],
)
def test_get_receptive_fields_are_what_the_stages_read(name, without):
    variant = NetworkName(name, 0.03125, without=without).build()
    side = variant.input_size
    pixels = [(0, 0), (side // 2, side // 3), (side - 1, side - 1)]
    images = np.ones((len(pixels), side, side, 3), np.float32)
    for image, pixel in zip(images, pixels, strict=True):
        image[pixel] = np.nan
    params = init_parameters(variant, jax.random.key(0), num_classes=3)
    # In bfloat16, because XLA:CPU's maximum of float32 loses NaN (findings/jax_max_of_large_arrays_loses_nan.sh).
    model = AlexNet(variant, 3, dtype=jnp.bfloat16)
    apply = jax.jit(lambda images: model.apply({'params': params}, images, mutable=[INTERMEDIATES]))
    stages = apply(images)[1][INTERMEDIATES]
    fields = get_receptive_fields(variant)
    assert set(fields) == {stage for stage, made in stages.items() if made.ndim == 4}
    for stage, (rows, columns) in fields.items():
        for made, (row, column) in zip(np.asarray(stages[stage]), pixels, strict=True):
            down, across = ((read[:, 0] <= at) & (at < read[:, 1]) for read, at in ((rows, row), (columns, column)))
            np.testing.assert_array_equal(np.isnan(made).any(axis=-1), down[:, None] & across, err_msg=stage)
