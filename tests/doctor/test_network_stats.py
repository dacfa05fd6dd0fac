"""Compares what is measured of real steps with the plain network of tests/oracle.py in float64 and sums in NumPy."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from alexnet_jax.doctor.network_stats import measure_network

pytestmark = pytest.mark.slow

# Released divides by LIGHTING_DIVISOR where it adds lighting. A small rate, because float32 finds another maximum in a
# pool now and then, and steps make much of it.
STEPS, RATE, LIGHTING_DIVISOR = 3, 3e-4, 1.1
CONVS = {'conv2': (2, 2), 'conv3': (1, 1), 'conv4': (1, 2), 'conv5': (1, 2)}  # (padding, groups)
MEASURED = 1e-3  # relative: of float32 against float64


def compute_linears(params, x, masks):
    """Computes {layer: its output before ReLU} of the released network; `masks` as of oracle.network."""
    found = {'conv1': oracle.conv(x, params['conv1'], stride=4, pad=((0, 3), (0, 3)))}
    x = oracle.FIRST['released'](found['conv1'])
    for name, (pad, groups) in CONVS.items():
        found[name] = oracle.conv(x, params[name], pad=((pad, pad),) * 2, groups=groups)
        x = oracle.SECOND['released'](found[name]) if name == 'conv2' else oracle.relu(found[name])
    x = oracle.pool(x).reshape(len(x), -1)
    for name, mask in zip(('fc6', 'fc7'), masks, strict=True):
        found[name] = x @ params[name]['kernel'] + params[name]['bias']
        x = oracle.relu(found[name]) * mask
    return found | {'fc8': x @ params['fc8']['kernel'] + params['fc8']['bias']}


compute_linears_in_testing = jax.jit(lambda params, x: compute_linears(params, x, (0.5, 0.5)))


def read(batch):
    """The crops as the network reads them."""
    return np.where(batch.places[:, 2, None, None, None], np.flip(batch.images, axis=2), batch.images)


def measure_layers(params, batches, mean):
    """Computes {layer: (mean, spread, variation, highest)} in testing, of batches of eight."""
    outputs = [compute_linears_in_testing(params, read(batch).astype(np.float64) - mean) for batch in batches]
    found = {}
    for name in params:
        every = np.stack([np.asarray(output[name]) for output in outputs])  # (batches, 8, ..., units)
        variation = np.sqrt(every.var(axis=1).mean() / (every**2).mean())
        found[name] = every.mean(), every.std(), variation, every.max(axis=tuple(range(every.ndim - 1)))
    return found


@contextlib.contextmanager
def compile_fast():
    """Compiles the plain network with all optimisations: without them it runs for long in float64."""
    jax.config.update('jax_disable_most_optimizations', False)
    try:
        yield
    finally:
        jax.config.update('jax_disable_most_optimizations', True)


@pytest.fixture(scope='module')
def both(lab):
    """Returns (what was measured of STEPS steps, the same computed plainly)."""
    snapshot = lab.make_snapshot(learning_rate=RATE)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(snapshot.state.params))
    mean = np.asarray(snapshot.state.mean_image, np.float64)
    batches = list(itertools.islice(snapshot.batches(0), 8))  # 64 images
    found = measure_network(snapshot, steps=STEPS, info=lambda text: None, instruments=lab.instruments)

    def loss(params, x, labels, masks):
        outputs = compute_linears(params, x, masks)
        return oracle.mean_cross_entropy(outputs['fc8'], labels), outputs

    with jax.enable_x64(True), compile_fast():
        plain: dict = {
            'before': measure_layers(params, batches, mean),
            'losses': [],
            'read': [],
            'masks': [],
            'updates': [],
        }
        differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True))
        velocity = jax.tree.map(np.zeros_like, params)
        for step, batch in enumerate(batches[:STEPS]):
            x = (read(batch) - mean + batch.lighting[:, None, None]) / LIGHTING_DIVISOR
            masks = oracle.dropout_masks(jax.random.fold_in(jax.random.key(0), step), 8, (256, 256))
            (value, outputs), grads = differentiate(params, jnp.asarray(x), batch.labels, masks)
            plain['losses'].append(float(value))
            plain['read'].append(x)
            plain['masks'].append(
                {
                    f: np.where(np.asarray(outputs[f]) > 0, 2 * m - 1, 0)
                    for f, m in zip(('fc6', 'fc7'), masks, strict=True)
                }
            )
            norms = {}
            for name, (kind, factor, decay) in itertools.product(params, (('kernel', 1, 5e-4), ('bias', 2, 0))):
                w, v, g = params[name][kind], velocity[name][kind], np.asarray(grads[name][kind])
                v = 0.9 * v - decay * RATE * w - factor * RATE * g
                if kind == 'kernel':
                    size = np.sqrt((w**2).sum())
                    norms[name] = np.sqrt((g**2).sum()), size, np.sqrt((v**2).sum()) / size
                params[name][kind], velocity[name][kind] = w + v, v
            plain['updates'].append(norms)
        plain['after'] = measure_layers(params, batches, mean)
        plain['pixels'] = np.stack([read(batch) for batch in batches[:STEPS]]).astype(np.float64)
    return found, plain


def test_measure_network_losses(both):
    found, plain = both
    np.testing.assert_allclose(found.losses, plain['losses'], rtol=1e-5)
    assert found.rates == pytest.approx([RATE] * STEPS) and found.start == 0 and found.images == 64


@pytest.mark.parametrize('when', ['before', 'after'])
def test_measure_network_layers(both, when):
    found, plain = both
    for name, (mean, spread, variation, highest) in plain[when].items():
        measured = getattr(found, when)[name]
        assert measured.mean == pytest.approx(mean, rel=MEASURED, abs=MEASURED * spread)
        assert measured.spread == pytest.approx(spread, rel=MEASURED)
        assert measured.variation == pytest.approx(variation, rel=MEASURED)
        np.testing.assert_allclose(measured.highest, highest, rtol=MEASURED, atol=MEASURED * spread)


def test_measure_network_updates(both):
    found, plain = both
    for name, update in found.updates.items():
        gradient, weight, ratio = np.median([norms[name] for norms in plain['updates']], axis=0)
        assert (update.gradient, update.weight, update.ratio) == pytest.approx((gradient, weight, ratio), rel=MEASURED)


def test_measure_network_inputs(both):
    found, plain = both
    read, inputs = np.stack(plain['read']), found.inputs
    np.testing.assert_allclose(inputs.mean, read.mean((0, 1, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(inputs.subtracted, (plain['pixels'] - read).mean((0, 1, 2, 3)), atol=1e-3)
    assert inputs.spread == pytest.approx(np.sqrt(read.var((0, 1, 2, 3)).mean()), rel=1e-5)
    assert (inputs.lowest, inputs.highest) == pytest.approx((read.min(), read.max()), rel=1e-5)


def correlate(pairs):
    """Computes Pearson's correlation by the formula, over all places that both of a pair know."""
    known = [(a[(a != 0) & (b != 0)], b[(a != 0) & (b != 0)]) for a, b in pairs]
    a, b = (np.concatenate(side) for side in zip(*known, strict=True))
    assert len(a) > 2500
    return ((a - a.mean()) * (b - b.mean())).sum() / np.sqrt(((a - a.mean()) ** 2).sum() * ((b - b.mean()) ** 2).sum())


def test_measure_network_dropout(both):
    found, plain = both
    masks = plain['masks']
    known = np.concatenate([mask[mask != 0] for step in masks for mask in step.values()])
    assert found.dropout.kept == pytest.approx((known > 0).mean(), abs=1e-3)
    every = [mask for step in masks for mask in step.values()]
    expected = {
        'towers': [(mask[:, :128], mask[:, 128:]) for mask in every],
        'images': [(mask[:-1], mask[1:]) for mask in every],
        'layers': [(step['fc6'], step['fc7']) for step in masks],
        'steps': [(a[name], b[name]) for a, b in itertools.pairwise(masks) for name in ('fc6', 'fc7')],
    }
    assert found.dropout.correlations == pytest.approx(
        {name: correlate(pairs) for name, pairs in expected.items()}, abs=2e-3
    )


def test_measure_network_holds_frozen_layers_and_warms_up(lab):
    """By hand: half of the rate in the first of two steps; frozen layers have no gradient and do not move."""
    snapshot = lab.make_snapshot(learning_rate=RATE, frozen=('conv1', 'conv2'), warmup_epochs=0.07, steps=30)
    before = jax.device_get(snapshot.state.params)
    assert snapshot.run.warmup_steps == 2  # of 210 images in batches of 8
    found = measure_network(snapshot, steps=2, info=lambda text: None)
    assert found.rates == pytest.approx([RATE / 2, RATE])
    assert found.frozen_layers[:2] == ('conv1', 'conv2')
    for layer in ('conv1', 'conv2', 'conv3'):
        updates = found.updates[layer]
        assert (updates.gradient == 0, updates.ratio == 0) == ((layer != 'conv3'),) * 2
        assert updates.weight == pytest.approx(np.linalg.norm(before[layer]['kernel']), rel=1e-3)
