"""A fresh state is what the plain program, compiled with no options and for one device, makes."""

import jax
import numpy as np
import optax
import pytest

from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import create_state

pytestmark = [pytest.mark.usefixtures('optimised'), pytest.mark.slow]

VARIANT = VARIANTS['released'].scaled(0.0625)


@pytest.fixture(scope='module')
def plain(optimised):
    return jax.jit(lambda: init_parameters(VARIANT, jax.random.key(3), num_classes=10))()


@pytest.mark.parametrize(
    ('shape', 'trick'),
    [
        pytest.param((1, 1), False, marks=pytest.mark.repeats),
        pytest.param((1, 2), False, marks=pytest.mark.repeats),
        ((2, 2), False),
        ((2, 4), True),
    ],
)
def test_create_state_gives_the_plain_program_s_parameters_bit_for_bit(shape, trick, plain):
    mean = np.random.default_rng(0).uniform(0, 255, (224, 224, 3)).astype(np.float32)
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    state = create_state(
        VARIANT, optimizer, make_mesh(*shape, one_weird_trick=trick), num_classes=10, mean_image=mean, seed=3
    )
    jax.tree.map(np.testing.assert_array_equal, state.params, plain)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(state.opt_state))
    np.testing.assert_array_equal(state.mean_image, mean)
    assert int(state.step) == 0
    if shape == (2, 2):  # each leaf lies where it should
        for tree in (state.params, optax.tree_utils.tree_get(state.opt_state, 'trace')):
            shares = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data.shape, tree)
            assert shares['conv2'] == {'kernel': (5, 5, 3, 8), 'bias': (8,)}  # one tower's outputs of two
            assert shares['fc6']['kernel'] == (6 * 6 * 16, 128)
            assert shares['fc8']['kernel'] == (256, 10)  # whole on both
