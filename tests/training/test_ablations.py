"""What an ablation does to training: the same on every mesh, other images where it says so, a folder of its own."""

import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import draw_parameters, run_with
from simplejpeg import decode_jpeg

from alexnet_jax.communication.audit import abstract_batch, exchange_bytes
from alexnet_jax.communication.messages import compiled_schedule, expected_schedule, traced_schedule
from alexnet_jax.data.augment import choose_offsets, sample_augmentations
from alexnet_jax.errors import InputError
from alexnet_jax.run.batches import make_batches
from alexnet_jax.run.run_dir import claim_run_dir
from alexnet_jax.sharding.mesh import TOWER, parameter_specs, place_batch, shardings
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import Batch

CLASSES, ROWS = 3, 4
# Those that change what a device has or says; the others only leave out or replace what happens within a tower.
NETWORKS = [
    *(pytest.param(name, marks=pytest.mark.repeats) for name in ('norm', 'dropout', 'conv3_exchange')),
    *('towers', 'exchange'),
]


def run_without(*without, mesh=(1, 1), **values):
    return run_with(mesh=mesh, width=0.03125, without=without, **values)


def three_steps(run):
    """Losses, and parameters after three steps in float64."""
    mesh, variant, optimizer = run.mesh, run.variant, run.optimizer
    random = np.random.default_rng(0)
    batch = Batch(
        random.integers(0, 256, (ROWS, 224, 224, 3), dtype=np.uint8),
        random.integers(0, CLASSES, ROWS).astype(np.int32),
        random.standard_normal((ROWS, 3)) * 10 * variant.lighting.strength,
    )
    params, losses = draw_parameters(variant, num_classes=CLASSES), []
    with jax.enable_x64(True):
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimizer.init(params),
            plateau=Plateau.start(),
            mean_image=random.uniform(100, 150, (224, 224, 3)),
        )
        state = jax.device_put(state, shardings(mesh, parameter_specs(mesh, state)))
        step = run.make_train_step()
        for _ in range(3):
            state, metrics = step(state, place_batch(mesh, batch))
            losses.append(float(metrics['loss']))
        return losses, jax.tree.map(np.asarray, state.params)


def assert_same_steps(run, other):
    (losses, params), (others, found) = three_steps(run), three_steps(other)
    assert all(np.isfinite(losses))
    assert losses[0] != losses[2]
    np.testing.assert_allclose(others, losses, rtol=1e-9)
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(found), strict=True):
        assert np.abs(other - one).max() <= 1e-9 * np.abs(one).max(), jax.tree_util.keystr(path)


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_train_step_without_a_part_is_the_same_on_one_device_and_on_two(name):
    values = {'variant': 'released', 'seed': 4, 'schedule': 'steps', 'learning_rate': 0.003}
    two = (2, 1) if name == 'towers' else (1, 2)
    assert_same_steps(run_without(name, mesh=(1, 1), **values), run_without(name, mesh=two, **values))


@pytest.mark.slow
@pytest.mark.repeats
def test_train_step_of_a_longer_chain_is_the_same_on_one_device_and_on_two():
    values = {'variant': 'deep5', 'seed': 4, 'schedule': 'steps', 'learning_rate': 0.003}
    assert_same_steps(run_without(mesh=(1, 1), **values), run_without(mesh=(1, 2), **values))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'exchanges'),
    [
        pytest.param('conv3_exchange', ['fc6', 'fc7', 'fc8'], marks=pytest.mark.repeats),
        ('exchange', ['fc8']),
        pytest.param('relu', None, marks=pytest.mark.repeats),
    ],
)
def test_train_step_exchanges_where_the_network_says_and_nowhere_else(name, exchanges):
    run = run_without(name, mesh=(1, 2))
    mesh = run.mesh
    traced = run.make_train_step().trace(run.abstract_state(), abstract_batch(mesh, ROWS))
    expected = expected_schedule(exchange_bytes(run.variant, mesh, batch_size=ROWS, num_classes=CLASSES), mesh)
    exchanges = exchanges or ['conv3', 'fc6', 'fc7', 'fc8']
    assert [entry[:2] for entry in expected] == [
        *((layer, 'forward') for layer in exchanges),
        *((layer, 'backward') for layer in exchanges[-2::-1]),
    ]
    readings = traced_schedule(traced.jaxpr, mesh), compiled_schedule(traced.lower().compile().as_text(), mesh)
    for found in readings:
        assert sorted((m.layer, m.direction, m.op, m.bytes) for m in found if TOWER in m.axis) == sorted(expected)


def test_make_batches_without_crops_has_the_centre_and_its_mirror_image(tiny):
    batches, mirrored = make_batches(run_without('crops'), tiny), 0
    for step in (0, 7):
        for image, record in zip(batches[step].images, batches[step].records, strict=True):
            centre = decode_jpeg(tiny.records('train')[int(record)][0])[16:240, 16:240]
            np.testing.assert_array_equal(image, centre)
        mirrored += batches[step].places[:, 2].sum()
    assert 0 < mirrored < 16


def test_make_batches_without_crops_and_flips_leaves_the_rest_as_it_was(tiny):
    whole, few = (make_batches(run, tiny)[3] for run in (run_without(), run_without('crops', 'flips')))
    np.testing.assert_array_equal(whole.records, few.records)
    np.testing.assert_array_equal(whole.lighting, few.lighting)
    batch = make_batches(run_without('flips'), tiny)[3]
    np.testing.assert_array_equal(batch.images, whole.images)
    assert not batch.places[:, 2].any() and 0 < whole.places[:, 2].sum() < 8


def test_choose_offsets_gives_the_centre_and_others_of_the_seed():
    assert choose_offsets(1, seed=5) == ((16, 16),)
    eight = choose_offsets(8, seed=5)
    assert eight[0] == (16, 16)
    assert len(set(eight)) == 8
    assert eight != choose_offsets(8, seed=6)
    assert eight == choose_offsets(100, seed=5)[:8]
    assert set(choose_offsets(1089, seed=0)) == {(top, left) for top in range(33) for left in range(33)}


def test_sample_augmentation_of_offsets_draws_evenly_and_keeps_flips_and_lighting():
    places = choose_offsets(8, seed=5)
    drawn = {'seed': 1, 'epochs': np.full(8000, 2), 'records': np.arange(8000)}
    (whole, normals), (few, same) = sample_augmentations(**drawn), sample_augmentations(**drawn, offsets=places)
    counts = Counter(map(tuple, few[:, :2].tolist()))
    assert set(counts) == set(places)
    assert all(880 < count < 1120 for count in counts.values())  # 1000, and four standard deviations of 29.6
    assert (whole[:, 2] == few[:, 2]).all() and (normals == same).all()


def test_make_batches_keeps_its_offsets_after_a_roll_back(tiny):
    run = run_without(crops=8, seed=3)
    assert make_batches(run, tiny).offsets == choose_offsets(8, seed=3) == make_batches(run, tiny, data_order=1).offsets
    assert make_batches(run_without(), tiny).offsets is None


@pytest.fixture
def folder(tiny, tmp_path):
    claim_run_dir(tmp_path / 'run', run_without('norm', 'overlap'), tiny)
    return tmp_path / 'run'


def test_claim_run_dir_refuses_another_ablation(folder, tiny):
    claim_run_dir(folder, run_without('overlap', 'norm'), tiny)
    with pytest.raises(InputError, match=r"holds another run \(without \['norm', 'overlap'\], not \['norm'\]\)"):
        claim_run_dir(folder, run_without('norm'), tiny)
    with pytest.raises(InputError, match=r'holds another run \(crops None, not 8\)'):
        claim_run_dir(folder, run_without('norm', 'overlap', crops=8), tiny)
    with pytest.raises(
        InputError, match=r"\(activation '', not 'sigmoid'\).*, or go on with it: --config\.activation=$"
    ):
        claim_run_dir(folder, run_without('norm', 'overlap', activation='sigmoid'), tiny)


@pytest.mark.parametrize(
    ('values', 'others'),
    [({'lighting': False}, ['lighting']), ({'crops': 1}, ['crops']), ({'activation': 'tanh'}, ['relu'])],
)
def test_claim_run_dir_takes_two_ways_to_say_the_same(values, others, tiny, tmp_path):
    assert run_without(**values).variant == run_without(*others).variant
    claim_run_dir(tmp_path / 'run', run_without(**values), tiny)
    claim_run_dir(tmp_path / 'run', run_without(*others), tiny)


def test_claim_run_dir_takes_a_folder_from_before_there_were_ablations(tiny, tmp_path, capsys):
    claim_run_dir(tmp_path / 'run', run_without(), tiny)
    for name, keys in {
        'run.json': ('without', 'crops', 'activation'),
        'config.json': ('without', 'crops', 'activation'),
    }.items():
        content = json.loads((tmp_path / 'run' / name).read_text())
        for key in keys:
            del content.get('identity', content)[key]
        (tmp_path / 'run' / name).write_text(json.dumps(content))
    claim_run_dir(tmp_path / 'run', run_without(), tiny)
    assert capsys.readouterr().err == ''
    assert json.loads((tmp_path / 'run' / 'run.json').read_text())['identity']['without'] == []
    with pytest.raises(InputError, match=r"another run \(without \[\], not \['norm'\]\)"):
        claim_run_dir(tmp_path / 'run', run_without('norm'), tiny)
