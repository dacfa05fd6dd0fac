"""Layers that are frozen or have rates of their own, against the plain network and in the compiled program; warm-up."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from builders import run_with
from training.test_step import CLASSES, EVERY, FOUR, SEED, TOLERANCE, TRICK8, TWO, cases, make_problem

from alexnet_jax.communication.audit import schedule_report, trace_step
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh, parameter_specs, place_batch, shardings
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.schedule import Plateau, fixed_drops
from alexnet_jax.training.state import TrainState, select_learning
from alexnet_jax.training.step import make_train_step, rates_at

CONVS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
FROZEN, FACTORS = ('conv1', 'conv3', 'fc7'), {'conv5': 0.5, 'fc8': 10.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('variant_name', 'case'),
    cases('paper', TWO, among=EVERY) + cases('released', FOUR, TRICK8, among=EVERY),
)
def test_train_step_leaves_frozen_layers_as_they_are_and_updates_the_others_by_their_factors(variant_name, case):
    """Gradients of the plain network, of which nothing is frozen: one step's do not depend on that."""
    problem, rate = make_problem(variant_name), 1024.0
    (shape, trick), variant = case, problem['variant']
    mesh = make_mesh(*shape, one_weird_trick=trick)
    bias_rate = {'paper': 1, 'released': 2}[variant_name]
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=bias_rate, rate_factors=FACTORS)
    with jax.enable_x64(True):
        learning = select_learning(problem['params'], FROZEN)
        ones = jax.tree.map(np.ones_like, learning)
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=problem['params'],
            opt_state=optax.tree_utils.tree_set(optimizer.init(learning), trace=ones),
            plateau=Plateau.start(),
            mean_image=problem['mean'],
        )
        state = jax.device_put(state, shardings(mesh, parameter_specs(mesh, state)))
        constant = fixed_drops(rate, factor=0.1, at_steps=())
        options = {'num_classes': CLASSES, 'seed': SEED, 'frozen_layers': FROZEN}
        step = make_train_step(variant, optimizer, constant, mesh, **options)
        state, metrics = step(state, place_batch(mesh, problem['batch']))
    assert abs(float(metrics['loss']) - problem['loss']) <= TOLERANCE * problem['loss']
    assert set(optax.tree_utils.tree_get(state.opt_state, 'trace')) == set(problem['params']) - set(FROZEN)
    for layer, leaves in problem['params'].items():
        for leaf, before in leaves.items():
            found = np.asarray(state.params[layer][leaf])
            if layer in FROZEN:
                np.testing.assert_array_equal(found, before)
                continue
            gradient = problem['gradients'][layer][leaf]
            factor, decay = {'kernel': (1, 5e-4), 'bias': (bias_rate, 0)}[leaf]
            scaled = rate * factor * FACTORS.get(layer, 1.0)
            (expected,) = oracle.paper_update(before, [gradient], [scaled], decay=decay, velocity=np.ones_like(before))
            assert np.abs(found - expected).max() <= TOLERANCE * scaled * np.abs(gradient).max(), (layer, leaf)


def list_backward(text):
    """The layers at which the compiled program computes in the backward pass, by what XLA says of its operations."""
    return set(re.findall(r'/transpose\(jvp\(AlexNet\)\)/AlexNet\._\w+/(\w+)/', text))


@functools.cache
def compile_step(mesh, frozen):
    run = run_with(variant='released', width=0.0625, mesh=mesh, frozen=frozen)
    return trace_step(run).lower().compile()


@pytest.mark.parametrize('mesh', [(1, 1), (1, 2)], ids=str)
def test_compiled_step_has_no_gradient_of_frozen_convolutions_nor_of_what_they_read(mesh):
    whole, frozen = (compile_step(mesh, layers).as_text() for layers in ((), CONVS))
    assert list_backward(whole) >= {*CONVS, 'fc6', 'fc7', 'fc8'}
    assert list_backward(frozen) & {*CONVS, 'fc6', 'fc7', 'fc8'} == {'fc6', 'fc7', 'fc8'}
    assert 0 < frozen.count(' convolution(') < whole.count(' convolution(')


def test_frozen_convolutions_need_less_memory_and_no_momentum():
    whole, frozen = (compile_step((1, 1), layers).memory_analysis() for layers in ((), CONVS))
    assert frozen.temp_size_in_bytes < 0.6 * whole.temp_size_in_bytes
    run = run_with(variant='released', width=0.0625, frozen=CONVS)
    assert set(optax.tree_utils.tree_get(run.abstract_state().opt_state, 'trace')) == {'fc6', 'fc7', 'fc8'}


def test_frozen_convolutions_send_nothing_backward():
    """Two towers: the gather before conv3 and fc6 has no transpose, and the audit knows the averages that are left."""
    run = run_with(variant='released', width=0.0625, mesh=(2, 2), frozen=CONVS)
    figures, table = schedule_report(run)
    sent = {(m['layer'], m['direction']) for m in figures['compiled'] if m['axis'] == 'tower'}
    assert {layer for layer, direction in sent if direction == 'forward'} == {'conv3', 'fc6', 'fc7', 'fc8'}
    assert {layer for layer, direction in sent if direction == 'backward'} <= {'fc7', 'fc8', None}
    shapes = run.abstract_state().params
    weights = {layer: 4 * sum(leaf.size for leaf in shapes[layer].values()) for layer in ('fc6', 'fc7', 'fc8')}
    averaged = (weights['fc6'] + weights['fc7']) // 2 + weights['fc8']  # of one tower; both have fc8: 2 * (n-1)/n is 1
    assert f'{averaged:,}' in table


def test_rates_grow_in_warm_up_by_as_much_each_step():
    """By hand: a drop from step 3 on, four steps of warm-up; biases of `released` do not drop, and grow too."""
    schedule = fixed_drops(0.08, factor=0.1, at_steps=(3,))
    for name, biases in (('paper', None), ('released', [0.02, 0.04, 0.06, 0.08, 0.08, 0.08])):
        options = {'schedule': schedule, 'variant': VARIANTS[name], 'warmup_steps': 4}
        found = [rates_at(jnp.int32(step), Plateau.start(), **options) for step in range(6)]
        np.testing.assert_allclose(
            [rates['learning_rate'] for rates in found], [0.02, 0.04, 0.06, 0.008, 0.008, 0.008], rtol=1e-6
        )
        if biases:
            np.testing.assert_allclose([rates['bias_learning_rate'] for rates in found], biases, rtol=1e-6)


@pytest.mark.parametrize(('epochs', 'steps'), [(0.0, 0), (1.0, 5), (0.3, 2)])
def test_build_run_counts_warm_up_in_steps(epochs, steps):
    """40 images in batches of 8."""
    run = run_with(warmup_epochs=epochs)
    assert run.warmup_steps == steps
