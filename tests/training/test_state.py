"""A fresh state is what the plain program, compiled with no options and for one device, makes."""

import jax
import numpy as np
import pytest

from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.state import create_state

pytestmark = pytest.mark.usefixtures('optimised')

VARIANT = VARIANTS['released'].scaled(0.125)


@pytest.mark.parametrize(('shape', 'trick'), [((1, 1), False), ((1, 2), False), ((2, 2), False), ((2, 4), True)])
def test_its_parameters_are_the_plain_program_s_bit_for_bit(shape, trick):
    mean = np.random.default_rng(0).uniform(0, 255, (224, 224, 3)).astype(np.float32)
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    state = create_state(
        VARIANT, optimizer, make_mesh(*shape, one_weird_trick=trick), num_classes=10, mean_image=mean, seed=3
    )
    plain = jax.jit(lambda: init_parameters(VARIANT, jax.random.key(3), num_classes=10))()
    jax.tree.map(np.testing.assert_array_equal, state.params, plain)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(state.opt_state))
    np.testing.assert_array_equal(state.mean_image, mean)
    assert int(state.step) == 0
