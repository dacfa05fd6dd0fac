"""The update rule against a NumPy recurrence written from section 5, and beside optax.sgd."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.schedule import LayerLRMultiplier, get_lr_multipliers

STEPS, DROPS = 200, (70, 140)
RATES = [0.01 * 0.1 ** sum(step >= drop for drop in DROPS) for step in range(STEPS)]


def problem():
    random = np.random.default_rng(0)
    start = {'layer': {'kernel': random.standard_normal((6, 5)), 'bias': random.standard_normal(5)}}
    gradients = [jax.tree.map(lambda w: random.standard_normal(w.shape), start) for _ in range(STEPS)]
    return start, gradients


def run(update, state, start, gradients):
    params, path = jax.tree.map(jnp.asarray, start), []
    for g, rate in zip(gradients, RATES, strict=True):
        updates, state = update(g, state, params, rate)
        params = optax.apply_updates(params, updates)
        path.append(jax.device_get(params))
    return path


def recurrence(start, gradients, name, *, rate_factor, decay):
    return oracle.paper_update(
        start['layer'][name],
        [g['layer'][name] for g in gradients],
        [rate * rate_factor for rate in RATES],
        decay=decay,
    )


@pytest.mark.parametrize('bias_rate', [pytest.param(1.0, marks=pytest.mark.repeats), 2.0])
def test_paper_sgd_of_200_steps_across_two_drops_equals_the_recurrence(bias_rate):
    start, gradients = problem()
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=bias_rate)
    with jax.enable_x64(True):
        update = jax.jit(lambda g, s, p, rate: optimizer.update(g, s, p, learning_rate=jnp.asarray(rate, jnp.float64)))
        path = run(update, optimizer.init(jax.tree.map(jnp.asarray, start)), start, gradients)
    kernels = recurrence(start, gradients, 'kernel', rate_factor=1, decay=5e-4)
    biases = recurrence(start, gradients, 'bias', rate_factor=bias_rate, decay=0)
    worst = max(np.abs(found['layer']['kernel'] - kernel).max() for found, kernel in zip(path, kernels, strict=True))
    print(f'figures: float64 update apart from the recurrence by {worst:.1e}')
    for found, kernel, bias in zip(path, kernels, biases, strict=True):
        np.testing.assert_allclose(found['layer']['kernel'], kernel, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found['layer']['bias'], bias, rtol=0, atol=1e-12)


def test_paper_sgd_keeps_the_rate_of_biases_where_only_the_weights_is_lowered():
    """CHM layers/layer-params-145.cfg: epsW 0.00001 and epsB 0.02 in the end; its log lowers epsw alone."""
    start, gradients = problem()
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=2.0)
    with jax.enable_x64(True):
        lr_multipliers = {'layer': jnp.float64(0.5)}
        update = jax.jit(
            lambda g, s, p, rate: optimizer.update(
                g,
                s,
                p,
                learning_rate=jnp.asarray(rate),
                bias_learning_rate=jnp.asarray(0.01),
                lr_multipliers=lr_multipliers,
            )
        )
        path = run(update, optimizer.init(jax.tree.map(jnp.asarray, start)), start, gradients)
    kernels = recurrence(start, gradients, 'kernel', rate_factor=0.5, decay=5e-4)
    own = [g['layer']['bias'] for g in gradients]
    biases = oracle.paper_update(start['layer']['bias'], own, [0.02] * STEPS, decay=0)
    for found, kernel, bias in zip(path, kernels, biases, strict=True):
        np.testing.assert_allclose(found['layer']['kernel'], kernel, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found['layer']['bias'], bias, rtol=0, atol=1e-12)


def test_paper_sgd_decays_each_layer_as_much_as_is_said_of_it():
    start, gradients = problem()
    start, gradients = ([dict.fromkeys('abc', tree['layer']) for tree in trees] for trees in ([start], gradients))
    optimizer = paper_sgd(
        momentum=0.9, weight_decay=0.004, bias_rate=2.0, weight_decay_multipliers={'a': 0.0, 'c': 250.0}
    )
    with jax.enable_x64(True):
        update = jax.jit(lambda g, s, p, rate: optimizer.update(g, s, p, learning_rate=jnp.asarray(rate, jnp.float64)))
        path = run(update, optimizer.init(jax.tree.map(jnp.asarray, start[0])), start[0], gradients)
    for layer, decay in {'a': 0.0, 'b': 0.004, 'c': 1.0}.items():
        own = [{'layer': tree[layer]} for tree in (*start, *gradients)]
        kernels = recurrence(own[0], own[1:], 'kernel', rate_factor=1, decay=decay)
        biases = recurrence(own[0], own[1:], 'bias', rate_factor=2, decay=0)
        for found, kernel, bias in zip(path, kernels, biases, strict=True):
            np.testing.assert_allclose(found[layer]['kernel'], kernel, rtol=0, atol=1e-12)
            np.testing.assert_allclose(found[layer]['bias'], bias, rtol=0, atol=1e-12)


def test_paper_sgd_multiplies_both_rates_of_a_layer_throughout():
    """Also where biases have a rate of their own, and with a factor that changes in time."""
    start, gradients = problem()
    start, gradients = ([dict.fromkeys('ab', tree['layer']) for tree in trees] for trees in ([start], gradients))
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=2.0, rate_factors={'a': 10.0})
    with jax.enable_x64(True):
        update = jax.jit(
            lambda g, s, p, rate: optimizer.update(
                g,
                s,
                p,
                learning_rate=jnp.asarray(rate),
                bias_learning_rate=jnp.asarray(0.01),
                lr_multipliers={'a': jnp.float64(0.5)},
            )
        )
        path = run(update, optimizer.init(jax.tree.map(jnp.asarray, start[0])), start[0], gradients)
    for layer, kernel_factor, bias_factor in (('a', 5.0, 10.0), ('b', 1.0, 1.0)):
        own = [{'layer': tree[layer]} for tree in (*start, *gradients)]
        kernels = recurrence(own[0], own[1:], 'kernel', rate_factor=kernel_factor, decay=5e-4)
        given = [tree[layer]['bias'] for tree in gradients]
        biases = oracle.paper_update(start[0][layer]['bias'], given, [0.02 * bias_factor] * STEPS, decay=0)
        for found, kernel, bias in zip(path, kernels, biases, strict=True):
            np.testing.assert_allclose(found[layer]['kernel'], kernel, rtol=0, atol=1e-11)
            np.testing.assert_allclose(found[layer]['bias'], bias, rtol=0, atol=1e-11)


def test_paper_sgd_in_float32_stays_within_1e_6_of_the_recurrence():
    start, gradients = problem()
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    f32 = jax.tree.map(lambda w: w.astype('f4'), (start, gradients))
    update = jax.jit(lambda g, s, p, rate: optimizer.update(g, s, p, learning_rate=jnp.float32(rate)))
    path = run(update, optimizer.init(f32[0]), *f32)
    kernels = recurrence(start, gradients, 'kernel', rate_factor=1, decay=5e-4)
    worst = max(np.abs(found['layer']['kernel'] - k).max() for found, k in zip(path, kernels, strict=True))
    print(f'figures: float32 update apart from the recurrence by {worst:.1e}')
    assert worst < 1e-6


def test_optax_sgd_is_the_same_until_the_rate_drops_and_another_rule_after():
    start, gradients = problem()
    sgd = optax.chain(
        optax.add_decayed_weights(5e-4, mask={'layer': {'kernel': True, 'bias': False}}),
        optax.sgd(lambda step: jnp.asarray(RATES)[step], momentum=0.9),
    )
    with jax.enable_x64(True):
        update = jax.jit(lambda g, s, p, rate: sgd.update(g, s, p))
        path = run(update, sgd.init(jax.tree.map(jnp.asarray, start)), start, gradients)
    kernels = recurrence(start, gradients, 'kernel', rate_factor=1, decay=5e-4)
    apart = [np.abs(found['layer']['kernel'] - k).max() for found, k in zip(path, kernels, strict=True)]
    print(f'figures: optax.sgd apart by {max(apart[: DROPS[0]]):.1e} before a drop, {apart[-1]:.2f} at the end')
    assert max(apart[: DROPS[0]]) < 1e-12
    assert apart[-1] > 0.05


def test_paper_sgd_slows_a_layer_and_holds_a_frozen_one():
    """conv1 at a tenth from step 70, left out from step 140 on: no step of old momentum either."""
    start, gradients = problem()
    names = {'conv1': start['layer'], 'conv2': start['layer']}
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=2.0)
    changes = (LayerLRMultiplier('conv1', 70, 0.1), LayerLRMultiplier('conv1', 140, 0.0))
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, names)
        state = optimizer.init(params)

        @jax.jit
        def update(params, state, g, step):
            lr_multipliers = get_lr_multipliers(changes, step)
            updates, state = optimizer.update(
                g, state, params, learning_rate=jnp.float64(0.01), lr_multipliers=lr_multipliers
            )
            return optax.apply_updates(params, updates), state

        path = []
        for step, g in enumerate(gradients):
            params, state = update(params, state, {'conv1': g['layer'], 'conv2': g['layer']}, step)
            path.append(jax.device_get(params))
    for name, decay, bias_rate in (('kernel', 5e-4, 1), ('bias', 0, 2)):
        own = [g['layer'][name] for g in gradients]
        rates = np.full(STEPS, 0.01 * bias_rate)
        slow = rates * np.where(np.arange(STEPS) < 70, 1, np.float32(0.1))
        usual = oracle.paper_update(start['layer'][name], own, rates, decay=decay)
        slowed = oracle.paper_update(start['layer'][name], own[:140], slow[:140], decay=decay)
        for step in range(STEPS):
            np.testing.assert_allclose(path[step]['conv2'][name], usual[step], rtol=0, atol=1e-12)
            np.testing.assert_allclose(path[step]['conv1'][name], slowed[min(step, 139)], rtol=0, atol=1e-9)
        assert abs(path[139]['conv1'][name] - path[69]['conv1'][name]).max() > 1e-3


def test_paper_sgd_refuses_an_argument_that_it_does_not_know():
    params = {'layer': {'kernel': jnp.ones(3), 'bias': jnp.ones(3)}}
    optimizer = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    with pytest.raises(TypeError, match='factors'):
        optimizer.update(params, optimizer.init(params), params, learning_rate=jnp.float32(0.1), factors={})
