"""Each operation against NumPy loops written from its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model import layers

RANDOM = np.random.default_rng(0)


def images(*shape):
    return RANDOM.standard_normal(shape) * 50


def norm_by_loops(x, towers, size, k, alpha, beta):
    out = np.empty_like(x)
    per_tower = x.shape[-1] // towers
    for i in range(x.shape[-1]):
        first = i // per_tower * per_tower
        window = range(max(first, i - size // 2), min(first + per_tower, i + size // 2 + 1))
        out[..., i] = x[..., i] / (k + alpha * sum(x[..., j] ** 2 for j in window)) ** beta
    return out


@pytest.mark.parametrize(('towers', 'beta'), [(1, 0.75), (2, 0.75), (2, 0.5)])
def test_channel_norm_is_the_formula(towers, beta):
    x = images(2, 3, 4, 12)
    with jax.enable_x64(True):
        found = layers.channel_norm(jnp.asarray(x), towers=towers, size=5, k=2.0, alpha=1e-4, beta=beta)
    np.testing.assert_allclose(found, norm_by_loops(x, towers, 5, 2.0, 1e-4, beta), rtol=1e-13)


def test_channel_norm_never_crosses_from_channel_47_to_48():
    x = images(1, 2, 2, 96)
    changed = x.copy()
    changed[..., 48:] *= 3
    norm = lambda a: np.asarray(layers.channel_norm(jnp.asarray(a), towers=2, size=5, k=2.0, alpha=1e-4, beta=0.75))  # noqa: E731
    np.testing.assert_array_equal(norm(x)[..., :48], norm(changed)[..., :48])
    assert np.abs(norm(x)[..., 48:] - norm(changed)[..., 48:]).min() > 0
    one_tower = layers.channel_norm(jnp.asarray(x), towers=1, size=5, k=2.0, alpha=1e-4, beta=0.75)
    assert not np.allclose(one_tower[..., 46:50], norm(x)[..., 46:50], rtol=1e-5)


def test_spatial_norm_is_the_formula():
    x = images(2, 6, 7, 3)
    expected = np.empty_like(x)
    for r in range(6):
        for c in range(7):
            window = x[:, max(0, r - 2) : r + 3, max(0, c - 2) : c + 3]
            expected[:, r, c] = x[:, r, c] / (1 + 4e-5 * (window**2).sum(axis=(1, 2))) ** 0.75
    with jax.enable_x64(True):
        found = layers.spatial_norm(jnp.asarray(x), size=5, k=1.0, alpha=4e-5, beta=0.75)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize(('size', 'out'), [(55, 27), (27, 13), (13, 6), (8, 3)])
def test_max_pool_is_the_maximum_of_overlapping_windows(size, out):
    x = images(1, size, size, 2)
    expected = np.empty((1, out, out, 2))
    for r in range(out):
        for c in range(out):
            expected[:, r, c] = x[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max(axis=(1, 2))
    np.testing.assert_array_equal(layers.max_pool(jnp.asarray(x), window=3, stride=2), expected.astype('f4'))


def test_max_pool_sends_the_gradient_to_the_first_of_equal_maxima():
    x = jnp.zeros((1, 3, 3, 1)).at[0, 0, 2].set(5).at[0, 2, 0].set(5)
    gradient = jax.grad(lambda a: layers.max_pool(a, window=3, stride=2).sum())(x)
    expected = np.zeros((1, 3, 3, 1))
    expected[0, 0, 2] = 1
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize('split_groups', [False, True])
@pytest.mark.parametrize(('groups', 'stride', 'padding'), [(1, 4, ((0, 3), (0, 3))), (2, 1, ((2, 2), (2, 2)))])
def test_convolution_is_the_sum_over_windows(groups, stride, padding, split_groups):
    x, kernel = images(2, 9, 9, 4 * groups), RANDOM.standard_normal((5, 5, 4, 6))
    padded = np.pad(x, ((0, 0), *padding, (0, 0)))
    out = (padded.shape[1] - 5) // stride + 1
    expected = np.empty((2, out, out, 6))
    for o in range(6):
        group = o // (6 // groups)
        own = padded[..., 4 * group : 4 * group + 4]
        for r in range(out):
            for c in range(out):
                window = own[:, stride * r : stride * r + 5, stride * c : stride * c + 5]
                expected[:, r, c, o] = (window * kernel[..., o]).sum(axis=(1, 2, 3))
    with jax.enable_x64(True):
        found = layers.convolution(
            jnp.asarray(x),
            jnp.asarray(kernel),
            stride=stride,
            padding=padding,
            groups=groups,
            split_groups=split_groups,
        )
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_bias_is_added_to_its_channel_and_its_gradient_is_the_sum_over_the_rest():
    x, bias, upstream = images(2, 3, 4, 5), RANDOM.standard_normal(5), images(2, 3, 4, 5)
    with jax.enable_x64(True):
        found, pull = jax.vjp(layers.add_bias, jnp.asarray(x), jnp.asarray(bias))
        dx, dbias = pull(jnp.asarray(upstream))
    np.testing.assert_allclose(found, x + bias, rtol=1e-15)
    np.testing.assert_array_equal(dx, upstream)
    np.testing.assert_allclose(dbias, upstream.sum(axis=(0, 1, 2)), rtol=1e-13)


def stream(rows, towers):
    return layers.DropoutStream(jax.random.key(3), jnp.asarray(rows), jnp.asarray(towers))


def test_dropout_masks_depend_on_row_and_tower_and_not_on_the_device():
    x = jnp.ones((6, 40))
    drop = lambda x, s: np.asarray(layers.dropout(x, s, layer=0, rate=0.5, inverted=False))  # noqa: E731
    whole = drop(x, stream(range(6), [0, 1]))
    part = drop(x[:2, :20], stream([4, 5], [1]))
    np.testing.assert_array_equal(part, whole[4:, 20:])
    assert set(np.unique(whole)) == {0, 1}
    assert (whole[:, :20] != whole[:, 20:]).any(axis=1).all()  # the towers do not drop the same units
    other_layer = layers.dropout(x, stream(range(6), [0, 1]), layer=1, rate=0.5, inverted=False)
    assert (whole != other_layer).any()


@pytest.mark.parametrize('inverted', [False, True])
def test_testing_sees_the_mean_of_what_training_sees(inverted):
    x = jnp.full((400, 200), 3.0)
    trained = layers.dropout(x, stream(range(400), [0, 1]), layer=0, rate=0.5, inverted=inverted)
    tested = layers.dropout(x, None, layer=0, rate=0.5, inverted=inverted)
    expected = 3.0 if inverted else 1.5  # the paper: "we multiply their outputs by 0.5"
    np.testing.assert_array_equal(tested, np.full((400, 200), expected, 'f4'))
    # 80,000 draws of half a chance: the mean's standard deviation is under 0.4 % of it.
    np.testing.assert_allclose(trained.mean(), expected, rtol=0.016)
