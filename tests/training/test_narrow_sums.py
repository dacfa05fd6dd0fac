"""Every sum that the bfloat16 step takes in bfloat16, in the forms of GPUs and TPUs, read from the traced program.

What is summed in float32 is not listed. What is summed in bfloat16 has to be in ALLOWED, with the reason.
"""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model import ops, ops_gpu
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training import step as step_module
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.schedule import fixed_drops
from alexnet_jax.training.state import create_state
from alexnet_jax.training.step import Batch, make_train_step

WIDTH, CLASSES, ROWS = 0.0625, 8, 8
NARROW = {'bfloat16', 'float16'}
# Primitives that add numbers of an array, or of several devices, in the dtype of what they give.
SUMS = {
    'conv_general_dilated', 'cumlogsumexp', 'cumsum', 'dot_general', 'psum', 'psum2', 'psum_invariant', 'ragged_dot',
    'reduce', 'reduce_scatter', 'reduce_sum', 'reduce_window', 'reduce_window_sum', 'scatter-add', 'scatter_add',
    'select_and_scatter', 'select_and_scatter_add',
}  # fmt: skip
PRODUCT = 'matrix units add products in float32, and round the sum once'
ALLOWED = {
    'dot_general': PRODUCT,
    'conv_general_dilated': PRODUCT,
    'select_and_scatter_add': 'a pixel is in at most four 3x3 windows at stride 2',
    'reduce_scatter': 'the way back of an exchange: it sends bfloat16, and adds two towers, or what model devices have',
}


def iter_equations(jaxpr):
    """Iterates over the equations of a traced program and of all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')):
            if hasattr(value, 'eqns') or hasattr(value, 'jaxpr'):
                yield from iter_equations(getattr(value, 'jaxpr', value))


def find_narrow_sums(jaxpr):
    """Counts {primitive: sums in a narrow dtype}; a sum of one number is none."""
    found = collections.Counter()
    for equation in iter_equations(jaxpr):
        result = equation.outvars[0].aval
        if equation.primitive.name in SUMS and str(getattr(result, 'dtype', '')) in NARROW:
            found[equation.primitive.name] += 1
    return found


def trace_step(monkeypatch, variant, shape, *, forms=ops, trick=False, dtype=jnp.bfloat16, **options):
    """Traces the whole step in the forms of TPUs, or of GPUs, though the mesh is the CPU's."""
    monkeypatch.setattr(step_module, 'find_operations', lambda mesh: forms)
    mesh, optimizer = make_mesh(*shape, one_weird_trick=trick), paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1)
    assert step_module.make_model(mesh, variant, num_classes=CLASSES).operations is forms
    size = variant.input_size
    mean = np.full((size, size, 3), 120.0)
    state = create_state(variant, optimizer, mesh, num_classes=CLASSES, mean_image=mean, seed=1)
    rate = fixed_drops(0.01, factor=0.1, at_steps=())
    step = make_train_step(variant, optimizer, rate, mesh, num_classes=CLASSES, seed=0, dtype=dtype, **options)
    shapes = [((ROWS, size, size, 3), np.uint8), ((ROWS,), np.int32), ((ROWS, 3), np.float32), ((ROWS, 3), np.int32)]
    return step.trace(state, Batch(*(jax.ShapeDtypeStruct(*given) for given in shapes))).jaxpr.jaxpr


@pytest.mark.parametrize(
    ('variant', 'shape', 'options'),
    [
        ('paper', (2, 2), {'clip_norm': 1.0}),
        ('paper', (2, 2), {'clip_norm': 1.0, 'forms': ops_gpu}),
        ('paper', (2, 2), {'trick': True}),
        ('cifar10_11pct', (2, 1), {}),
    ],
    ids=['two towers, clipped', 'two towers, clipped, on GPUs', 'one weird trick', 'locally connected'],
)
def test_bfloat16_step_has_no_narrow_sum_without_a_reason(monkeypatch, variant, shape, options):
    network = NETWORKS[variant]
    jaxpr = trace_step(monkeypatch, network.scaled(WIDTH) if variant == 'paper' else network, shape, **options)
    found = find_narrow_sums(jaxpr)
    assert set(found) <= set(ALLOWED), found
    assert ('select_and_scatter_add' in found) == (options.get('forms') is not ops_gpu)
    # The reader sees them: three products a layer, but for the images' gradient, and logits that come in float32.
    products = found['dot_general'] + found['conv_general_dilated']
    assert products == 3 * (len(network.convs) + len(network.dense)) - 2


@pytest.mark.parametrize('mutant', ['bias', 'average'])
def test_find_narrow_sums_sees_a_bias_and_a_pool_that_sum_in_bfloat16(monkeypatch, mutant):
    if mutant == 'bias':
        monkeypatch.setattr(ops, 'add_bias', lambda x, bias: x + bias.astype(x.dtype))
        variant, primitive = NETWORKS['paper'].scaled(WIDTH), 'reduce_sum'
    else:
        monkeypatch.setattr(ops, '_widen', lambda dtype: dtype)
        variant, primitive = NETWORKS['cifar10_80sec'], 'reduce_window_sum'
    assert find_narrow_sums(trace_step(monkeypatch, variant, (1, 1)))[primitive]


def test_float32_step_has_no_narrow_sum_at_all(monkeypatch):
    assert not find_narrow_sums(trace_step(monkeypatch, NETWORKS['paper'].scaled(WIDTH), (2, 2), dtype=None))
