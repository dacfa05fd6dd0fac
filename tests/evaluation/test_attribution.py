"""Each method against NumPy: finite differences, hand-made ways back, loops over squares, the papers' formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluation import slow_network as slow

from alexnet_jax.evaluation.attribution import (
    BackwardRules,
    compute_grad_cam,
    compute_gradient,
    compute_shifted,
    integrate_gradients,
    list_places,
    measure_occlusion,
    spread_falls,
)
from alexnet_jax.model import ops, ops_cpu
from alexnet_jax.model.alexnet import AlexNet

PARAMS = slow.make_parameters()
IMAGES = slow.make_images(3)
LABELS = np.array([2, 0, 3], np.int32)
RULES = {
    'gradient': lambda x, signal: signal * (x > 0),
    'guided': lambda x, signal: signal * (x > 0) * (signal > 0),
    'deconvnet': lambda x, signal: signal * (signal > 0),
}


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def make_model(operations, method='gradient'):
    return AlexNet(
        slow.VARIANT,
        slow.CLASSES,
        operations=operations if method == 'gradient' else BackwardRules(operations, method),
    )


def make_compute(operations=ops, method='gradient'):
    return functools.partial(make_model(operations, method).apply, {'params': PARAMS})


def slow_logit(image, label):
    return slow.go_forward(PARAMS, image).logits[label]


def slow_signal(image, label, method):
    passed = slow.go_forward(PARAMS, image)
    return slow.go_back(PARAMS, passed, label, rectify=RULES[method], through_norm=method != 'deconvnet')


def differentiate(function, x, step=1e-6):
    """Central differences of a function of an array, at each of its numbers."""
    found = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[place] += sign * step
            ends.append(function(moved))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


@pytest.mark.parametrize('operations', [ops, ops_cpu])
def test_gradient_equals_finite_differences(operations):
    found = np.asarray(compute_gradient(make_compute(operations), jnp.asarray(IMAGES), LABELS))
    expected = differentiate(functools.partial(slow_logit, label=LABELS[0]), IMAGES[0])
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found[0], expected, atol=1e-8)
    for row in range(3):  # a whole image each, and the hand-made way back that the other methods are compared with
        np.testing.assert_allclose(found[row], slow_signal(IMAGES[row], LABELS[row], 'gradient'), atol=1e-12)


@pytest.mark.parametrize('operations', [ops, ops_cpu])
@pytest.mark.parametrize('method', ['guided', 'deconvnet'])
def test_signals_go_back_by_their_rules_through_switches(method, operations):
    """Of the same logits; guided through the normalisation's derivative, the deconvnet past it."""
    compute = make_compute(operations, method)
    forward = [slow.go_forward(PARAMS, image).logits for image in IMAGES]
    np.testing.assert_allclose(compute(jnp.asarray(IMAGES)), forward, rtol=1e-12)
    found = np.asarray(jax.jit(functools.partial(compute_gradient, compute))(jnp.asarray(IMAGES), LABELS))
    expected = [slow_signal(image, label, method) for image, label in zip(IMAGES, LABELS, strict=True)]
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-12)
    others = set(RULES) - {method}
    for other in others:  # by another rule another signal: the comparison above could fail
        assert np.abs(slow_signal(IMAGES[0], LABELS[0], other) - expected[0]).max() > 0.01


def test_integrated_gradients_of_a_linear_and_a_quadratic_function_are_exact():
    """(x - x0) w of a linear one, and of w x^2 w (x^2 - x0^2), with however few steps."""
    random = np.random.default_rng(0)
    images, baseline = random.normal(size=(2, 4, 4, 3)), random.normal(size=(4, 4, 3))
    weights = random.normal(size=(5, 4, 4, 3))
    labels = np.array([4, 1], np.int32)
    chosen = weights[labels]

    def linear(x):
        return jnp.einsum('bhwc,khwc->bk', x, weights) + 7

    def quadratic(x):
        return linear(x**2)

    for compute, expected in (
        (linear, chosen * (images - baseline)),
        (quadratic, chosen * (images**2 - baseline**2)),
    ):
        gradient = functools.partial(compute_gradient, compute, classes=labels)
        for steps in (1, 3):
            found = integrate_gradients(gradient, jnp.asarray(images), baseline, steps=steps)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_integrated_gradients_are_complete():
    """They add up to the logit less the baseline's, to 1e-3 with enough steps and not with one."""
    gradient = jax.jit(functools.partial(compute_gradient, make_compute(), classes=LABELS))
    apart = [
        slow_logit(image, label) - slow_logit(np.zeros_like(image), label)
        for image, label in zip(IMAGES, LABELS, strict=True)
    ]
    assert np.abs(apart).min() > 0.01
    gaps = {}
    for steps in (1, 2000):
        found = integrate_gradients(gradient, jnp.asarray(IMAGES), 0.0, steps=steps)
        gaps[steps] = np.abs(np.asarray(found).sum(axis=(1, 2, 3)) - apart)
    assert gaps[2000].max() < 1e-3
    assert gaps[1].max() > 1e-2


@pytest.mark.parametrize(('window', 'stride', 'fill', 'batch_size'), [(3, 2, 0.0, 7), (4, 3, 0.5, 32), (9, 1, 0.0, 1)])
def test_occlusion_equals_a_loop_over_squares(window, stride, fill, batch_size):
    compute = jax.jit(make_compute())

    def score(images, labels):
        assert len(images) == batch_size
        return np.asarray(compute(images))[range(len(labels)), labels]

    options = {'window': window, 'stride': stride, 'fill': fill, 'batch_size': batch_size}
    found = measure_occlusion(score, IMAGES, LABELS, **options)
    places = {3: [0, 2, 4, 6], 4: [0, 3, 5], 9: [0]}[window]
    assert found.shape == (3, len(places), len(places))
    expected, sums, times = np.zeros_like(found), np.zeros((3, 9, 9)), np.zeros((3, 9, 9))
    for image, label in enumerate(LABELS):
        for i, top in enumerate(places):
            for j, left in enumerate(places):
                covered = IMAGES[image].copy()
                covered[top : top + window, left : left + window] = fill
                expected[image, i, j] = slow_logit(IMAGES[image], label) - slow_logit(covered, label)
                sums[image, top : top + window, left : left + window] += expected[image, i, j]
                times[image, top : top + window, left : left + window] += 1
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-12)
    maps = spread_falls(found, size=9, window=window, stride=stride)
    np.testing.assert_allclose(maps, sums / times, atol=1e-6)


def test_list_places_reaches_the_edge():
    assert list_places(224, window=32, stride=16) == [*range(0, 193, 16)]
    assert list_places(10, window=4, stride=4) == [0, 4, 6]
    assert list_places(10, window=10, stride=3) == [0]


def test_spread_falls_is_0_under_no_square():
    found = spread_falls(np.ones((1, 3, 3)), size=7, window=1, stride=3)
    assert found[0].sum() == 9 and found[0, 3, 6] == 1 and found[0, 1, 1] == 0


def test_grad_cam_is_the_papers_formula_of_activations_and_finite_differences():
    """Equations 1 and 2: alpha_k the mean of d y / d A_k over places, then ReLU of sum_k alpha_k A_k."""
    compute = functools.partial(compute_shifted, make_model(ops), PARAMS, stage='conv2/relu')
    found = np.asarray(jax.jit(lambda x: compute_grad_cam(compute, x, LABELS, (4, 4, 6)))(IMAGES))
    for row, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        maps = np.maximum(slow.go_forward(PARAMS, image).linear2, 0)
        slopes = differentiate(lambda maps, label=label: slow.classify(PARAMS, maps)[1][label], maps)
        expected = np.zeros((4, 4))
        for channel in range(6):
            expected += slopes[..., channel].mean() * maps[..., channel]
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found[row], np.maximum(expected, 0), atol=1e-8)
    assert (found == 0).any() and (found > 0.01).any()


def test_compute_shifted_adds_to_one_stage_alone():
    shift = np.random.default_rng(3).normal(size=(1, 4, 4, 6))
    logits, maps = compute_shifted(make_model(ops), PARAMS, jnp.asarray(IMAGES[:1]), shift, stage='conv2/relu')
    plain = np.maximum(slow.go_forward(PARAMS, IMAGES[0]).linear2, 0)
    np.testing.assert_allclose(maps[0], plain + shift[0], rtol=1e-12)
    np.testing.assert_allclose(logits[0], slow.classify(PARAMS, plain + shift[0])[1], rtol=1e-12)
