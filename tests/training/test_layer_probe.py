"""What a look into a step sees, against the plain network of tests/oracle.py in float64 and norms in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from builders import run_with
from jax.sharding import PartitionSpec as P
from training.test_step import CLASSES, PARTS, ROWS, SEED, SPREADS, WIDTH, make_problem

from alexnet_jax.sharding.collectives import norm_over_towers
from alexnet_jax.sharding.mesh import TOWER, make_mesh, parameter_specs, place_batch, shardings
from alexnet_jax.training.layer_probe import compile_layer_probe, make_layer_probe
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import TrainState

UNITS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')


def compute_units(problem, part):
    """Computes {layer: what its units give} of the released network; the last images have lighting, two have none."""
    seen, batch = [], problem['batch']
    act = PARTS[part][1].get('act', oracle.relu)

    def record(x):
        seen.append(act(x))
        return seen[-1]

    divisor = np.full((ROWS, 1, 1, 1), 1.1)
    divisor[[2, 5]] = 1
    mirrored = np.where(batch.places[:, 2, None, None, None], np.flip(batch.images, axis=2), batch.images)
    images = (mirrored - problem['mean'] + batch.lighting[:, None, None]) / divisor / SPREADS.get(part, 1.0)
    masks = oracle.dropout_masks(problem['key'], ROWS, [256, 256])
    oracle.network('released', problem['params'], jnp.asarray(images), masks, act=record)
    return dict(zip(UNITS, map(np.asarray, seen), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('part', 'values'),
    [
        pytest.param('', {'mesh': (1, 1)}, marks=pytest.mark.repeats),
        pytest.param('', {'mesh': (2, 2), 'parallelism': 'hybrid'}, marks=pytest.mark.repeats),
        ('', {'mesh': (1, 2), 'parallelism': 'one_weird_trick'}),
        pytest.param('', {'mesh': (2, 4), 'parallelism': 'one_weird_trick'}, marks=pytest.mark.repeats),
        ('sigmoid', {'mesh': (1, 2)}),
    ],
    ids=str,
)
def test_layer_probe_sees_what_the_plain_network_has(part, values):
    problem = make_problem('released', part)
    if part:  # so that some units are at their ends
        large = {layer: {'kernel': x['kernel'] * 6, 'bias': x['bias']} for layer, x in problem['params'].items()}
        problem = problem | {'params': large}
    run = run_with(
        variant='released', width=WIDTH, seed=SEED, num_classes=CLASSES, schedule='steps', activation=part, **values
    )
    mesh, rate = run.mesh, float(np.float32(run.config.initial_learning_rate))  # as the schedule has it
    with jax.enable_x64(True):
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=problem['params'],
            opt_state=run.optimizer.init(problem['params']),
            plateau=Plateau.start(),
            mean_image=problem['mean'],
        )
        state = jax.device_put(state, shardings(mesh, parameter_specs(mesh, state)))
        found = make_layer_probe(run)(state, place_batch(mesh, problem['batch']))
        found = {name: float(value) for name, value in found.items()}
        units = compute_units(problem, part)
    expected = {}
    for layer, y in units.items():
        if part:
            expected[f'{layer}/saturated'] = (4 * y * (1 - y) < 0.01).mean()
        else:
            expected[f'{layer}/dead'] = (y.reshape(-1, y.shape[-1]).max(axis=0) <= 0).mean()
    lost = {name: found.pop(name) for name in expected}
    assert lost == pytest.approx(expected, abs=1e-6)  # shares are float32
    assert 0 < max(expected.values()) < 1
    assert found.keys() == {f'{layer}/{what}' for layer in (*UNITS, 'fc8') for what in ('gradient', 'update')}
    for layer, leaves in problem['params'].items():
        if part:  # of other weights than the problem's gradients
            assert found[f'{layer}/gradient'] > 0
            continue
        gradient, weight = problem['gradients'][layer]['kernel'], leaves['kernel']
        (moved,) = oracle.paper_update(np.zeros_like(weight), [gradient], [rate], decay=0.0)
        moved -= 5e-4 * rate * weight
        assert found[f'{layer}/gradient'] == pytest.approx(np.linalg.norm(gradient), rel=1e-12)
        assert found[f'{layer}/update'] == pytest.approx(np.linalg.norm(moved) / np.linalg.norm(weight), rel=1e-12)


def test_norm_over_towers_of_what_vanishes_is_not_zero():
    """By hand: 1e-25 in each of 12 places, whose squares are no numbers of float32; and of nothing, nothing."""
    mesh, x = make_mesh(1, 2), np.full((3, 4), 1e-25, np.float32)

    def norm(x, spec):
        measure = jax.shard_map(lambda x: norm_over_towers(x, spec, mesh), mesh=mesh, in_specs=spec, out_specs=P())
        return float(jax.jit(measure)(x))

    for spec in (P(None, TOWER), P()):
        assert norm(x, spec) == pytest.approx(12**0.5 * 1e-25, rel=1e-6)
        assert norm(0 * x, spec) == 0


def test_compile_layer_probe_looks_at_the_first_step_and_every_so_many(monkeypatch):
    class Program:
        def lower(self, state, batch):
            return self

        def compile(self):
            return lambda state, batch: {'conv1/gradient': state}

    monkeypatch.setattr('alexnet_jax.training.layer_probe.make_layer_probe', lambda run: Program())
    probe = compile_layer_probe(run_with(probe_every=3), None, None)
    assert [step for step in range(1, 11) if probe(step, 1.0, None)] == [1, 3, 6, 9]
    monkeypatch.setattr('alexnet_jax.training.layer_probe.make_layer_probe', lambda run: pytest.fail('compiled'))
    assert compile_layer_probe(run_with(), None, None)(1, 1.0, None) == {}
