"""LARS against a NumPy recurrence written from its paper and its authors' program, beside optax.lars, on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.zoo import PAPER
from alexnet_jax.sharding.mesh import make_mesh, parameter_specs, place
from alexnet_jax.training.optimizer import lars, make_norms
from alexnet_jax.training.schedule import LayerLRMultiplier, Plateau, get_lr_multipliers, polynomial
from alexnet_jax.training.step import rates_at

STEPS, WARMUP, RATE, DECAY = 40, 12, 10.0, 5e-4
OPTIONS = {'trust_coefficient': 0.001, 'momentum': 0.9, 'weight_decay': DECAY}
RATES = [RATE * (1 - step / STEPS) ** 2 * min(1, (step + 1) / WARMUP) for step in range(STEPS)]
ONE = make_norms(make_mesh(1, 1))


def problem(layers='ab', *, zero=()):
    """Weights of some layers and their gradients of every step; the arrays named `zero` begin at 0."""
    random = np.random.default_rng(0)
    start = {
        layer: {'kernel': random.standard_normal((6, 4)) * 0.1, 'bias': random.standard_normal(4)} for layer in layers
    }
    for layer, name in zero:
        start[layer][name] = np.zeros_like(start[layer][name])
    sizes = {layer: 10.0 ** (1 - 2 * place) for place, layer in enumerate(layers)}  # of gradients: far apart
    gradients = [
        {layer: {n: random.standard_normal(w.shape) * sizes[layer] for n, w in start[layer].items()} for layer in start}
        for _ in range(STEPS)
    ]
    return start, gradients


def descend(optimizer, start, gradients, rates=RATES, **given):
    """The parameters after each step, in float64; `given` are functions of the step."""
    with jax.enable_x64(True):

        @jax.jit
        def update(params, state, g, rate, step):
            more = {name: value(step) for name, value in given.items()}
            updates, state = optimizer.update(g, state, params, learning_rate=rate, **more)
            return optax.apply_updates(params, updates), state

        params, path = jax.tree.map(jnp.asarray, start), []
        state = optimizer.init(params)
        for step, (g, rate) in enumerate(zip(gradients, rates, strict=True)):
            params, state = update(params, state, g, jnp.float64(rate), jnp.int32(step))
            path.append(jax.device_get(params))
    return path


def assert_follows(path, start, gradients, layer, name, *, tolerance=1e-12, factor=1.0, **options):
    own = [g[layer][name] for g in gradients]
    expected = oracle.lars_update(start[layer][name], own, [factor * rate for rate in RATES], **options)
    for found, wanted in zip(path, expected, strict=True):
        np.testing.assert_allclose(found[layer][name], wanted, rtol=0, atol=tolerance)


def test_lars_with_warm_up_equals_the_recurrence():
    """Kernels are decayed, biases not; both have local rates, though here gradients of layers are 100 times apart."""
    start, gradients = problem()
    path = descend(lars(norms=ONE, **OPTIONS), start, gradients)
    for layer in start:
        assert_follows(path, start, gradients, layer, 'kernel')
        assert_follows(path, start, gradients, layer, 'bias', decayed=False)


def test_lars_takes_an_unscaled_step_where_an_array_is_0_and_lets_nothing_slow_biases():
    start, gradients = problem(zero=[('a', 'bias'), ('b', 'kernel')])
    gradients[5]['a'] = jax.tree.map(np.zeros_like, gradients[5]['a'])  # then momentum alone, and decay
    path = descend(lars(norms=ONE, **OPTIONS), start, gradients, bias_learning_rate=lambda step: jnp.float64(7))
    for layer in start:
        assert_follows(path, start, gradients, layer, 'kernel')
        assert_follows(path, start, gradients, layer, 'bias', decayed=False)
    np.testing.assert_allclose(path[0]['a']['bias'], -RATES[0] * gradients[0]['a']['bias'], rtol=1e-12)


def test_lars_has_each_layer_s_decay_in_both_places_its_factors_and_its_late_changes():
    start, gradients = problem('abc')
    optimizer = lars(norms=ONE, weight_decay_multipliers={'a': 250.0, 'b': 0.0}, rate_factors={'b': 3.0}, **OPTIONS)
    late = lambda step: get_lr_multipliers((LayerLRMultiplier('c', 20, 0.0),), step)  # noqa: E731
    path = descend(optimizer, start, gradients, lr_multipliers=late)
    for layer, decay, factor in (('a', 250 * DECAY, 1.0), ('b', 0.0, 3.0)):
        assert_follows(path, start, gradients, layer, 'kernel', decay=decay, factor=factor)
        assert_follows(path, start, gradients, layer, 'bias', decay=decay, decayed=False, factor=factor)
    for name in ('kernel', 'bias'):  # held from step 20 on
        np.testing.assert_array_equal(path[-1]['c'][name], path[19]['c'][name])


def test_optax_lars_is_the_same_without_decay_and_another_rule_with_it():
    start, gradients = problem()

    def by_optax(decay):
        schedule = lambda step: jnp.asarray(RATES)[step]  # noqa: E731
        mask = {layer: {'kernel': True, 'bias': False} for layer in start}
        rule = optax.lars(schedule, weight_decay=decay, weight_decay_mask=mask, trust_coefficient=0.001, momentum=0.9)
        with jax.enable_x64(True):
            params = jax.tree.map(jnp.asarray, start)
            state = rule.init(params)
            for g in gradients:
                updates, state = rule.update(g, state, params)
                params = optax.apply_updates(params, updates)
        return jax.device_get(params)

    for decay, same in ((0.0, True), (0.3, False)):
        own = descend(lars(norms=ONE, **(OPTIONS | {'weight_decay': decay})), start, gradients)[-1]
        apart = max(jax.tree.leaves(jax.tree.map(lambda x, y: abs(x - y).max(), own, by_optax(decay))))
        print(f'figures: optax.lars apart by {apart:.1e} with a decay of {decay}')
        assert apart < 1e-12 if same else apart > 1e-3


@pytest.mark.parametrize(
    ('shape', 'trick'),
    [
        ((1, 2), False),
        pytest.param((2, 1), False, marks=pytest.mark.repeats),
        pytest.param((2, 2), False, marks=pytest.mark.repeats),
        ((2, 4), True),
    ],
)
def test_lars_on_every_mesh_equals_the_recurrence_of_whole_arrays(shape, trick):
    """The norm of a kernel is that of both towers' halves, whatever the halves' own are."""
    mesh, variant = make_mesh(*shape, one_weird_trick=trick), PAPER.scaled(0.0625)
    random = np.random.default_rng(1)
    params = init_parameters(variant, jax.random.key(0), num_classes=7)
    start = jax.tree.map(lambda w: np.asarray(w, np.float64) * np.linspace(0.1, 3, w.shape[-1]), params)
    gradients = [
        jax.tree.map(lambda w: random.standard_normal(w.shape) * np.linspace(3, 0.1, w.shape[-1]), start)
        for _ in range(3)
    ]
    with jax.enable_x64(True):
        placed = place(mesh, start, parameter_specs(mesh, start))
        sharded = [place(mesh, g, parameter_specs(mesh, g)) for g in gradients]
        path = descend(lars(norms=make_norms(mesh), **OPTIONS), placed, sharded, RATES[11:14])
    worst = 0.0
    for layer in start:
        for name, decayed in (('kernel', True), ('bias', False)):
            own = [g[layer][name] for g in gradients]
            wanted = oracle.lars_update(start[layer][name], own, RATES[11:14], decayed=decayed)
            for found, expected in zip(path, wanted, strict=True):
                worst = max(worst, abs(found[layer][name] - expected).max() / abs(expected).max())
    print(f'figures: LARS on {shape[0]}x{shape[1]}{" with the trick" * trick}, apart by {worst:.1e} of the largest')
    assert worst < 1e-12


def test_polynomial_with_warm_up_is_the_paper_s_schedule():
    for step in (0, 3, 11, 12, 39, 40, 50):
        schedule = polynomial(RATE, power=2.0, steps=STEPS)
        found = rates_at(jnp.int32(step), Plateau.start(), schedule=schedule, variant=PAPER, warmup_steps=WARMUP)
        expected = RATES[step] if step < STEPS else 0.0
        np.testing.assert_allclose(found['learning_rate'], expected, rtol=1e-6)
