"""Each operation, in its plain form and in those of CPUs and GPUs, against NumPy loops written from its formula.

Then the gradients of those forms against those that JAX derives from the plain ones.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model import ops, ops_cpu, ops_gpu
from alexnet_jax.model.spec import AveragePool, ChannelNorm, MaxPool, Relu, Sigmoid, SpatialNorm, Tanh

pytestmark = pytest.mark.usefixtures('optimised')

RANDOM = np.random.default_rng(0)

POOL = MaxPool(window=3, stride=2)
NORM = {'norm': ChannelNorm(size=5, k=2.0, alpha=1e-4, beta=0.75), 'towers': 2}

repeats = pytest.mark.repeats
both_forms = pytest.mark.parametrize('operations', [ops, ops_cpu], ids=['plain', 'cpu'])
all_forms = pytest.mark.parametrize('operations', [ops, ops_cpu, ops_gpu], ids=['plain', 'cpu', 'gpu'])


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


@all_forms
@pytest.mark.parametrize(('towers', 'beta'), [pytest.param(1, 0.75, marks=repeats), (2, 0.75), (2, 0.5)])
def test_channel_norm_is_the_formula(operations, towers, beta):
    x = images(2, 3, 4, 12)
    with jax.enable_x64(True):
        found = operations.channel_norm(jnp.asarray(x), ChannelNorm(5, 2.0, 1e-4, beta), towers=towers)
    np.testing.assert_allclose(found, norm_by_loops(x, towers, 5, 2.0, 1e-4, beta), rtol=1e-13)


@all_forms
def test_channel_norm_never_crosses_from_channel_47_to_48(operations):
    x = images(1, 2, 2, 96)
    changed = x.copy()
    changed[..., 48:] *= 3
    norm = lambda a: np.asarray(operations.channel_norm(jnp.asarray(a), **NORM))  # noqa: E731
    np.testing.assert_array_equal(norm(x)[..., :48], norm(changed)[..., :48])
    assert np.abs(norm(x)[..., 48:] - norm(changed)[..., 48:]).min() > 0
    one_tower = operations.channel_norm(jnp.asarray(x), **NORM | {'towers': 1})
    assert not np.allclose(one_tower[..., 46:50], norm(x)[..., 46:50], rtol=1e-5)


@all_forms
def test_spatial_norm_is_the_formula(operations):
    x = images(2, 6, 7, 3)
    expected = np.empty_like(x)
    for r in range(6):
        for c in range(7):
            window = x[:, max(0, r - 2) : r + 3, max(0, c - 2) : c + 3]
            expected[:, r, c] = x[:, r, c] / (1 + 4e-5 * (window**2).sum(axis=(1, 2))) ** 0.75
    with jax.enable_x64(True):
        found = operations.spatial_norm(jnp.asarray(x), SpatialNorm(size=5, k=1.0, alpha=4e-5, beta=0.75))
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@all_forms
@pytest.mark.parametrize(
    ('size', 'out'), [pytest.param(55, 27, marks=repeats), pytest.param(27, 13, marks=repeats), (13, 6), (8, 3)]
)
def test_max_pool_is_the_maximum_of_overlapping_windows(operations, size, out):
    x = images(1, size, size, 2)
    expected = np.empty((1, out, out, 2))
    for r in range(out):
        for c in range(out):
            expected[:, r, c] = x[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max(axis=(1, 2))
    np.testing.assert_array_equal(operations.max_pool(jnp.asarray(x), POOL), expected.astype('f4'))


@pytest.mark.parametrize(  # of stride 2, from the left
    ('size', 'out'), [*(pytest.param(2 * n, n, marks=repeats) for n in (16, 8, 12)), (7, 3), (8, 4)]
)
@pytest.mark.parametrize(
    ('pool', 'kind', 'expect'),
    [
        (ops.max_pool, MaxPool(3, 2, partial=True), np.max),
        (ops_cpu.max_pool, MaxPool(3, 2, partial=True), np.max),
        (ops_gpu.max_pool, MaxPool(3, 2, partial=True), np.max),
        (ops.average_pool, AveragePool(3, 2, partial=True), np.mean),
        (ops_cpu.average_pool, AveragePool(3, 2, partial=True), np.mean),
        # Before dd8fd31 in CC include/cudaconv2/conv_util.cuh: all sums are divided by the window's nine places.
        (ops.average_pool, AveragePool(3, 2, partial=True, divides_by='window'), lambda x, axis: x.sum(axis) / 9),
    ],
    ids=['max', 'max on cpu', 'max on gpu', 'average', 'average on cpu', 'average by whole windows'],
)
def test_pool_cuts_partial_windows_off_at_the_edge(pool, kind, expect, size, out):
    x = images(2, size, size, 2) - 200  # below zero, so that a zero from outside would be the maximum
    expected = np.empty((2, out, out, 2))
    for r in range(out):
        for c in range(out):
            expected[:, r, c] = expect(x[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3], axis=(1, 2))
    with jax.enable_x64(True):
        found = pool(jnp.asarray(x), kind)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@both_forms
def test_average_pool_by_whole_windows_gives_a_ninth_of_the_gradient_to_each_pixel_of_a_window(operations):
    """At the edges too: kLocalAvgUndo before dd8fd31 in CC src/cudaconv2/conv_util.cu."""
    expected, upstream = np.zeros((1, 8, 8, 1)), images(1, 4, 4, 1)
    for r in range(4):
        for c in range(4):
            expected[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3] += upstream[:, None, None, r, c] / 9
    pool = AveragePool(3, 2, partial=True, divides_by='window')
    with jax.enable_x64(True):
        _, backward = jax.vjp(lambda x: operations.average_pool(x, pool), jnp.zeros((1, 8, 8, 1)))
        (found,) = backward(jnp.asarray(upstream))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_forms_that_are_the_plain_ones():
    assert ops_cpu.local_convolution is ops_gpu.local_convolution is ops.local_convolution
    assert ops_gpu.average_pool is ops.average_pool
    assert (ops_gpu.convolution, ops_gpu.add_bias) == (ops.convolution, ops.add_bias)
    assert (ops_gpu.tanh, ops_gpu.sigmoid) == (ops.tanh, ops.sigmoid)


@both_forms
def test_average_pool_takes_whole_windows_alone(operations):
    x = images(2, 8, 8, 3)
    expected = np.stack([[x[:, r : r + 3, c : c + 3].mean(axis=(1, 2)) for c in (0, 2, 4)] for r in (0, 2, 4)])
    with jax.enable_x64(True):
        found = operations.average_pool(jnp.asarray(x), AveragePool(3, 2))
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1, 3), rtol=1e-14)


@both_forms
def test_average_pool_sums_bfloat16_in_float32(operations):
    x = jnp.asarray(images(2, 9, 9, 3), jnp.bfloat16)
    exact = np.stack(
        [[np.asarray(x, 'f8')[:, r : r + 3, c : c + 3].mean(axis=(1, 2)) for c in (0, 2, 4, 6)] for r in (0, 2, 4, 6)]
    )
    found = operations.average_pool(x, AveragePool(3, 2))
    assert found.dtype == jnp.bfloat16
    # Rounded once, to half of the last of 8 bits.
    np.testing.assert_allclose(np.asarray(found, 'f8'), exact.transpose(2, 0, 1, 3), rtol=2**-8)


def test_local_convolution_has_a_kernel_at_every_place():
    x, kernel = images(2, 4, 5, 3), RANDOM.standard_normal((4, 5, 3 * 3 * 3, 6))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 4, 5, 6))
    for r in range(4):
        for c in range(5):
            for i, j, channel in np.ndindex(3, 3, 3):
                weights = kernel[r, c, (i * 3 + j) * 3 + channel]
                expected[:, r, c] += padded[:, r + i, c + j, channel, None] * weights
    with jax.enable_x64(True):
        found = ops.local_convolution(jnp.asarray(x), jnp.asarray(kernel), side=3, padding=((1, 1), (1, 1)))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


@all_forms
def test_max_pool_sends_the_gradient_to_the_first_of_equal_maxima(operations):
    x = jnp.zeros((1, 3, 3, 1)).at[0, 0, 2].set(5).at[0, 2, 0].set(5)
    gradient = jax.grad(lambda a: operations.max_pool(a, POOL).sum())(x)
    expected = np.zeros((1, 3, 3, 1))
    expected[0, 0, 2] = 1
    np.testing.assert_array_equal(gradient, expected)


@both_forms
@pytest.mark.parametrize(('groups', 'stride', 'padding'), [(1, 4, ((0, 3), (0, 3))), (2, 1, ((2, 2), (2, 2)))])
def test_convolution_is_the_sum_over_windows(operations, groups, stride, padding):
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
        found = operations.convolution(
            jnp.asarray(x), jnp.asarray(kernel), stride=stride, padding=padding, groups=groups
        )
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


@both_forms
def test_add_bias_adds_to_its_channel_and_its_gradient_is_the_sum_over_the_rest(operations):
    x, bias, upstream = images(2, 3, 4, 5), RANDOM.standard_normal(5), images(2, 3, 4, 5)
    with jax.enable_x64(True):
        found, pull = jax.vjp(operations.add_bias, jnp.asarray(x), jnp.asarray(bias))
        dx, dbias = pull(jnp.asarray(upstream))
    np.testing.assert_allclose(found, x + bias, rtol=1e-15)
    np.testing.assert_array_equal(dx, upstream)
    np.testing.assert_allclose(dbias, upstream.sum(axis=(0, 1, 2)), rtol=1e-13)


@both_forms
@pytest.mark.parametrize(
    ('shape', 'axes'),
    [((8, 55, 55, 4), (0, 1, 2)), ((4096, 16), (0,)), ((4096, 3, 3, 4), (0,))],
    ids=['convolution', 'dense', 'every place'],
)
def test_add_bias_of_bfloat16_sums_its_gradient_in_float32(operations, shape, axes):
    # Of a mean well above zero: summed in bfloat16, it stands still at 256 times the summand.
    x, upstream = (jnp.asarray(RANDOM.uniform(0.5, 1.5, shape), jnp.bfloat16) for _ in range(2))
    expected = np.asarray(upstream, np.float64).sum(axis=axes)
    bias = jnp.asarray(RANDOM.standard_normal(expected.shape), jnp.float32)
    found, pull = jax.vjp(operations.add_bias, x, bias)
    dx, dbias = pull(upstream)
    assert (found.dtype, dx.dtype, dbias.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    rounded = np.asarray(x, np.float64) + np.asarray(bias.astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(np.asarray(found, np.float64), rounded, rtol=2**-8, atol=2**-8)
    np.testing.assert_array_equal(dx, upstream)
    np.testing.assert_allclose(dbias, expected, rtol=1e-5)


@both_forms
def test_local_convolution_of_bfloat16_sums_a_pixel_s_gradient_in_float32(operations):
    """With a kernel of ones a pixel's gradient is the sum of the gradients of the 25 places that read it."""
    x, upstream = jnp.ones((1, 9, 9, 1), jnp.bfloat16), jnp.asarray(RANDOM.uniform(1, 2, (1, 9, 9, 1)), jnp.bfloat16)
    kernel = jnp.ones((9, 9, 25, 1), jnp.bfloat16)
    convolve = functools.partial(operations.local_convolution, kernel=kernel, side=5, padding=((2, 2), (2, 2)))
    (found,) = jax.vjp(convolve, x)[1](upstream)
    padded = np.pad(np.asarray(upstream, np.float64)[0, :, :, 0], 2)
    expected = [[padded[i : i + 5, j : j + 5].sum() for j in range(9)] for i in range(9)]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64)[0, :, :, 0], expected, rtol=2**-8)  # rounded once


@both_forms
def test_sigmoid_is_numpy_s_with_its_slope(operations):
    x, upstream = RANDOM.standard_normal((2, 3, 4, 5)) * 4, images(2, 3, 4, 5)
    with jax.enable_x64(True):
        found, pull = jax.vjp(operations.sigmoid, jnp.asarray(x))
        (slope,) = pull(jnp.asarray(upstream))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-x)), rtol=1e-14)
    np.testing.assert_allclose(slope, upstream / (2 * np.cosh(x / 2)) ** 2, rtol=1e-9, atol=1e-12)


def test_relative_slope_is_that_of_the_output_as_a_fraction_of_the_largest():
    """By hand: 1 / cosh^2, 4 s (1 - s), and where each falls under 1 % of its largest."""
    x = np.array([-6.0, -5.9, -3.0, -2.9, 0.0, 2.9, 3.0, 5.9, 6.0])
    with jax.enable_x64(True):
        tanh = np.asarray(ops.relative_slope(Tanh(), jnp.tanh(x)))
        sigmoid = np.asarray(ops.relative_slope(Sigmoid(), jnp.asarray(1 / (1 + np.exp(-x)))))
        relu = np.asarray(ops.relative_slope(Relu(), jnp.maximum(x, 0)))
    np.testing.assert_allclose(tanh, 1 / np.cosh(x) ** 2, rtol=1e-9)
    np.testing.assert_allclose(sigmoid, 1 / np.cosh(x / 2) ** 2, rtol=1e-9)
    np.testing.assert_array_equal(relu, x > 0)
    np.testing.assert_array_equal(tanh < ops.SATURATED, np.abs(x) > 2.993)  # cosh(2.993) is 10
    np.testing.assert_array_equal(sigmoid < ops.SATURATED, np.abs(x) > 2 * 2.993)
    assert ops.relative_slope(Tanh(), jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32


@both_forms
def test_tanh_is_numpy_s_with_its_slope(operations):
    x, upstream = RANDOM.standard_normal((2, 3, 4, 5)) * 2, images(2, 3, 4, 5)
    with jax.enable_x64(True):
        found, pull = jax.vjp(operations.tanh, jnp.asarray(x))
        (slope,) = pull(jnp.asarray(upstream))
    np.testing.assert_allclose(found, np.tanh(x), rtol=1e-14)
    np.testing.assert_allclose(slope, upstream / np.cosh(x) ** 2, rtol=1e-9, atol=1e-12)
    difference = (np.tanh(x + 1e-5) - np.tanh(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, upstream * difference, rtol=1e-6, atol=1e-7)


# The blocks of the network: what the CPU forms replace, on shapes whose sizes are even and odd, with one group and two.
BLOCKS = {
    # Of few outputs, an odd and an even number of places, and of many.
    'conv1': ('convolution', [(3, 40, 36, 3), (11, 11, 3, 8)], {'stride': 4, 'padding': ((0, 3), (0, 3))}),
    'conv1, 20 maps': ('convolution', [(3, 40, 36, 3), (11, 11, 3, 20)], {'stride': 4, 'padding': ((0, 3), (0, 3))}),
    'conv2': ('convolution', [(3, 13, 13, 8), (5, 5, 4, 16)], {'stride': 1, 'padding': ((2, 2), (2, 2)), 'groups': 2}),
    'conv2, 20 maps': ('convolution', [(3, 12, 13, 4), (5, 5, 4, 20)], {'stride': 1, 'padding': ((2, 2), (2, 2))}),
    'conv2, no edge': ('convolution', [(3, 12, 13, 4), (5, 5, 4, 8)], {'stride': 1, 'padding': ((0, 0), (0, 0))}),
    'conv3': ('convolution', [(3, 9, 9, 128), (3, 3, 128, 132)], {'stride': 1, 'padding': ((1, 1), (1, 1))}),
    'conv3, narrow': ('convolution', [(3, 9, 9, 8), (3, 3, 8, 16)], {'stride': 1, 'padding': ((1, 1), (1, 1))}),
    'conv4': (
        'convolution',
        [(3, 6, 7, 256), (3, 3, 128, 256)],
        {'stride': 1, 'padding': ((1, 1), (1, 1)), 'groups': 2},
    ),
    'conv4 of a pixel': ('convolution', [(3, 1, 1, 128), (3, 3, 128, 128)], {'stride': 1, 'padding': ((1, 1), (1, 1))}),
    'bias': ('add_bias', [(3, 9, 9, 8), (8,)], {}),
    'dense bias': ('add_bias', [(64, 8), (8,)], {}),
    'relu': ('relu', [(3, 9, 9, 8)], {}),
    'tanh': ('tanh', [(3, 9, 9, 8)], {}),
    'sigmoid': ('sigmoid', [(3, 9, 9, 8)], {}),
    'norm': ('channel_norm', [(3, 5, 5, 16)], NORM),
    'norm, even window': ('channel_norm', [(3, 5, 5, 16)], NORM | {'norm': ChannelNorm(4, 2.0, 1e-2, 0.75)}),
    'norm, other power': ('channel_norm', [(3, 5, 5, 16)], NORM | {'norm': ChannelNorm(5, 2.0, 1e-4, 0.5)}),
    'norm within a map': ('spatial_norm', [(3, 9, 9, 8)], {'norm': SpatialNorm(5, 1.0, 4e-5, 0.75)}),
    'pool 55': ('max_pool', [(2, 55, 55, 4)], {'pool': POOL}),
    'pool 13': ('max_pool', [(2, 13, 13, 4)], {'pool': POOL}),
    'pool, even size': ('max_pool', [(2, 12, 14, 4)], {'pool': POOL}),
    'pool, no overlap': ('max_pool', [(2, 12, 11, 4)], {'pool': MaxPool(2, 2)}),
    'pool, stride 1': ('max_pool', [(2, 7, 8, 4)], {'pool': MaxPool(3, 1)}),
    'pool, partial': ('max_pool', [(2, 8, 9, 4)], {'pool': MaxPool(3, 2, partial=True)}),
    'mean': ('average_pool', [(2, 13, 12, 4)], {'pool': AveragePool(3, 2)}),
    'mean, partial': ('average_pool', [(2, 8, 9, 4)], {'pool': AveragePool(3, 2, partial=True)}),
    'mean, by windows': (
        'average_pool',
        [(2, 8, 9, 4)],
        {'pool': AveragePool(3, 2, partial=True, divides_by='window')},
    ),
    'bias of every place': ('add_bias', [(3, 4, 5, 8), (4, 5, 8)], {}),
    'pool, gaps': ('max_pool', [(2, 17, 18, 4)], {'pool': MaxPool(2, 3)}),
}


def value_and_gradients(operation, arguments, upstream, dtype):
    def both(arguments, upstream):
        value, pull = jax.vjp(operation, *arguments)
        return value, *pull(upstream)

    given = jax.tree.map(lambda a: jnp.asarray(a, dtype), (arguments, upstream))
    return [np.asarray(a) for a in jax.jit(both)(*given)]


SAME_PATH = {'pool 55', 'pool, even size', 'pool, no overlap'}  # as another block
BOUNDS = {'float32': 1e-6, 'float64': 1e-14}
# Of float32 only Winograd's sums and differences of pixels are not covered by float64.
FIRST = {('conv3', 'float32')} | {(block, 'float64') for block in BLOCKS if block not in SAME_PATH}


@pytest.mark.parametrize(
    ('block', 'dtype'),
    [
        pytest.param(*case, marks=() if case in FIRST else repeats)
        for case in itertools.product(BLOCKS, ('float32', 'float64'))
    ],
)
def test_cpu_forms_have_the_gradients_of_the_plain_ones(block, dtype):
    check_gradients(ops_cpu, block, dtype)


@pytest.mark.parametrize(
    ('maps', 'primitive', 'shape'),
    [
        ((11, 11, 3, 12), 'conv_general_dilated', (15, 15, 3, 48)),  # 2x2 places of stride 4 reach over 11 + 4 pixels
        ((11, 11, 3, 24), 'conv_general_dilated', (11, 11, 3, 24)),
        ((3, 3, 96, 96), 'conv_general_dilated', (3, 3, 96, 96)),
        ((3, 3, 128, 128), 'dot_general', (16, 128, 128)),
    ],
)
def test_cpu_form_of_convolution_suits_the_number_of_its_maps(maps, primitive, shape):
    stride, edge = (4, 0) if maps[0] == 11 else (1, 1)
    plain = lambda x, kernel: ops_cpu.convolution(x, kernel, stride=stride, padding=((edge, edge),) * 2)  # noqa: E731
    given = jax.ShapeDtypeStruct((2, 27, 27, maps[2]), 'float32'), jax.ShapeDtypeStruct(maps, 'float32')
    (call,) = jax.make_jaxpr(plain)(*given).jaxpr.eqns
    operands = {
        (equation.primitive.name, operand.aval.shape)
        for equation in call.params['call_jaxpr'].eqns
        for operand in equation.invars
    }
    assert (primitive, shape) in operands


@pytest.mark.parametrize(
    ('block', 'dtype'),
    [
        pytest.param(*case, marks=() if case in FIRST else repeats)
        for case in itertools.product(BLOCKS, ('float32', 'float64'))
        if case[0].startswith(('relu', 'norm', 'pool'))
    ],
)
def test_gpu_forms_have_the_gradients_of_the_plain_ones(block, dtype):
    check_gradients(ops_gpu, block, dtype)


def check_gradients(form, block, dtype):
    name, shapes, options = BLOCKS[block]
    arguments = [images(*shapes[0]), *(RANDOM.standard_normal(shape) for shape in shapes[1:])]
    with jax.enable_x64(True):
        # The plain form in float64 is the oracle, also of the float32 block.
        plain = functools.partial(getattr(ops, name), **options)
        upstream = RANDOM.standard_normal(jax.eval_shape(plain, *map(jnp.asarray, arguments)).shape)
        expected = value_and_gradients(plain, arguments, upstream, 'float64')
        found = value_and_gradients(functools.partial(getattr(form, name), **options), arguments, upstream, dtype)
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == dtype
        assert np.linalg.norm(got - wanted) <= BOUNDS[dtype] * np.linalg.norm(wanted)


@all_forms
def test_max_pool_of_overlapping_windows_rewards_the_first_maximum_of_each(operations):
    # Whole numbers from a small range, so that most windows have several maxima, as ReLU's zeros do in the network.
    x, upstream = RANDOM.integers(0, 3, (2, 9, 11, 3)), RANDOM.integers(1, 9, (2, 4, 5, 3))
    expected = np.zeros(x.shape)
    for image, row, column, channel in np.ndindex(upstream.shape):
        view = x[image, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3, channel]
        i, j = np.unravel_index(view.argmax(), (3, 3))  # NumPy's argmax is the first in row order
        expected[image, 2 * row + i, 2 * column + j, channel] += upstream[image, row, column, channel]
    pull = jax.vjp(lambda a: operations.max_pool(a, POOL), jnp.asarray(x, 'f4'))[1]
    gradient = pull(jnp.asarray(upstream, 'f4'))[0]
    np.testing.assert_array_equal(gradient, expected)


@all_forms
def test_max_pool_does_not_hide_a_pixel_that_is_nan(operations):
    x = jnp.ones((1, 5, 5, 1)).at[0, 2, 2, 0].set(jnp.nan)
    pooled, _ = jax.vjp(lambda a: operations.max_pool(a, POOL), x)
    assert np.isnan(pooled).all()


@both_forms
def test_channel_norm_of_bfloat16_is_that_of_float32_rounded_once(operations):
    x, upstream = (jnp.asarray(images(2, 3, 3, 16), jnp.bfloat16) for _ in range(2))
    found, pull = jax.vjp(lambda a: operations.channel_norm(a, **NORM), x)
    wide = [np.asarray(a, np.float64) for a in (x, upstream)]
    with jax.enable_x64(True):
        expected, pull_wide = jax.vjp(lambda a: ops.channel_norm(a, **NORM), jnp.asarray(wide[0]))
        expected = np.asarray(expected), np.asarray(pull_wide(jnp.asarray(wide[1]))[0])
    for got, wanted in zip((found, *pull(upstream)), expected, strict=True):
        assert got.dtype == jnp.bfloat16
        # A rounding to eight bits is at most 2^-8 of the value; two in a row would be more.
        np.testing.assert_allclose(np.asarray(got, np.float64), wanted, rtol=2**-8 * 1.01, atol=1e-4)


def test_gpu_form_of_channel_norm_rounds_what_it_sums_to_bfloat16_and_no_sum():
    """2 alpha beta x_i times the sum over the window of i of g_j x_j s_j^-(1 + beta), each of these rounded."""
    x, upstream = (jnp.asarray(images(2, 3, 3, 16), jnp.bfloat16) for _ in range(2))
    _, pull = jax.vjp(lambda a: ops_gpu.channel_norm(a, **NORM), x)
    (found,) = pull(upstream)
    x, g = (np.asarray(a, np.float64).reshape(2, 3, 3, 2, 8) for a in (x, upstream))

    def windows(a):
        padded = np.pad(a, [(0, 0)] * 4 + [(2, 2)])
        return sum(padded[..., k : k + 8] for k in range(5))

    s = 2.0 + 1e-4 * windows(x**2)
    terms, factor = g * x * s**-1.75, 2 * 1e-4 * 0.75 * x
    expected = g * s**-0.75 - factor * windows(terms)
    bound = 2**-8 * (np.abs(expected) + np.abs(factor) * windows(np.abs(terms))) + 1e-4
    apart = np.abs(np.asarray(found, np.float64).reshape(expected.shape) - expected)
    assert found.dtype == jnp.bfloat16
    assert (apart <= bound).all()


def test_gpu_form_of_max_pool_sums_a_pixel_s_gradient_in_float32():
    """The middle pixel is the maximum of four windows: 256 + 1 + 1 + 1, window by window, is 256 in bfloat16."""
    x = jnp.zeros((1, 5, 5, 1), jnp.bfloat16).at[0, 2, 2, 0].set(1)
    upstream = jnp.asarray([[1, 1], [1, 256]], jnp.bfloat16).reshape(1, 2, 2, 1)
    (found,) = jax.vjp(lambda a: ops_gpu.max_pool(a, POOL), x)[1](upstream)
    assert (found.dtype, float(found[0, 2, 2, 0])) == (jnp.bfloat16, 260)  # of 259 the nearest that is even


@all_forms
def test_relu_has_no_gradient_at_zero(operations):
    value, pull = jax.vjp(operations.relu, jnp.asarray([-2.0, 0.0, 3.0]))
    np.testing.assert_array_equal(value, [0, 0, 3])
    np.testing.assert_array_equal(pull(jnp.asarray([5.0, 5.0, 5.0]))[0], [0, 0, 5])


def stream(rows, towers):
    return ops.DropoutStream(jax.random.key(3), jnp.asarray(rows), jnp.asarray(towers))


def test_dropout_masks_depend_on_row_and_tower_and_not_on_the_device():
    x = jnp.ones((6, 40))
    drop = lambda x, s: np.asarray(ops.dropout(x, s, layer=0, rate=0.5, inverted=False))  # noqa: E731
    whole = drop(x, stream(range(6), [0, 1]))
    part = drop(x[:2, :20], stream([4, 5], [1]))
    np.testing.assert_array_equal(part, whole[4:, 20:])
    assert set(np.unique(whole)) == {0, 1}
    assert (whole[:, :20] != whole[:, 20:]).any(axis=1).all()  # the towers do not drop the same units
    other_layer = ops.dropout(x, stream(range(6), [0, 1]), layer=1, rate=0.5, inverted=False)
    assert (whole != other_layer).any()


@pytest.mark.parametrize('inverted', [False, True])
def test_dropout_in_testing_gives_the_mean_of_training(inverted):
    x = jnp.full((400, 200), 3.0)
    trained = ops.dropout(x, stream(range(400), [0, 1]), layer=0, rate=0.5, inverted=inverted)
    tested = ops.dropout(x, None, layer=0, rate=0.5, inverted=inverted)
    expected = 3.0 if inverted else 1.5  # the paper: "we multiply their outputs by 0.5"
    np.testing.assert_array_equal(tested, np.full((400, 200), expected, 'f4'))
    # 80,000 draws of half a chance: the mean's standard deviation is under 0.4 % of it.
    np.testing.assert_allclose(trained.mean(), expected, rtol=0.016)
