"""Numbers that go wrong: the step is named, its images are written down, and the run does what its config says."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.test_loop import run

from alexnet_jax import InputError
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.parallel.mesh import make_mesh, place_batch
from alexnet_jax.training import batches, loop
from alexnet_jax.training.config import recipe
from alexnet_jax.training.digests import tree_hash
from alexnet_jax.training.recipe import layer_factors_of, optimizer_of, schedule_of, variant_of
from alexnet_jax.training.state import create_state
from alexnet_jax.training.step import Batch, make_train_step

BAD = 5  # the step whose batch is spoilt
OPTIONS = {'steps': 9, 'checkpoint_every': 3, 'evaluate_every': 9, 'log_every': 1}


@pytest.fixture
def spoilt(monkeypatch):
    """The first batch that is made for step BAD turns the loss to NaN on its way to the devices."""
    counted = []

    def place(mesh, batch, **size):
        counted.append(1)
        if len(counted) == BAD:
            batch = dataclasses.replace(batch, lighting=np.full_like(batch.lighting, np.nan))
        return place_batch(mesh, batch, **size)

    monkeypatch.setattr(batches, 'place_batch', place)
    return monkeypatch


def by_hand(tiny, *, without=()):
    """Parameters after each of 9 steps from plain calls of the training step, some batches left out."""
    config = recipe('tiny', mesh=(1, 2))
    config.update(variant='released', width=0.0625, batch_size=8, schedule='steps', **OPTIONS)
    mesh, variant, optimizer = make_mesh(1, 2), variant_of(config), optimizer_of(config)
    mean = np.asarray(centre_crop(tiny.mean_image))
    state = create_state(variant, optimizer, mesh, num_classes=3, mean_image=mean, seed=0)
    slowed = layer_factors_of(config, examples=40)
    rates = schedule_of(config, examples=40)
    step = make_train_step(variant, optimizer, rates, mesh, num_classes=3, seed=0, slowed=slowed)
    hashes = {}
    for number in range(1, 10):
        if number in without:
            state = dataclasses.replace(state, step=state.step + 1)
        else:
            batch = batches.batches_of(config, tiny)[number - 1]
            placed = place_batch(mesh, Batch(batch.images, batch.labels, batch.lighting))
            state, _ = step(state, placed)
        hashes[number] = tree_hash(state.params)
    return hashes


def bad_numbers(workdir):
    return [json.loads(line) for line in (workdir / 'bad_numbers.jsonl').read_text().splitlines()]


def steps_of_log(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [line['step'] for line in lines if line['split'] == 'train']


def test_it_stops_with_the_state_before_saved_and_the_images_named(spoilt, tiny, tmp_path):
    with pytest.raises(InputError, match='the loss is nan at step 5: stopped; the state before it is checkpoint 4'):
        run(tiny, tmp_path / 'run', **OPTIONS)
    assert sorted(path.name for path in (tmp_path / 'run/checkpoints').iterdir()) == ['3', '4']
    (line,) = bad_numbers(tmp_path / 'run')
    order = np.random.default_rng([0, 0, 0x0DE4]).permutation(40)
    assert line == {'step': 5, 'number': 'loss', 'value': 'nan', 'action': 'stop', 'records': order[32:40].tolist()}
    assert steps_of_log(tmp_path / 'run') == [1, 2, 3, 4]
    spoilt.undo()
    # What was saved is the state after 4 steps and nothing else: going on from it comes to an undisturbed run's end.
    assert run(tiny, tmp_path / 'run', **OPTIONS)['params_sha256'] == by_hand(tiny)[9]


def test_skipping_leaves_out_that_batch_and_nothing_else(spoilt, tiny, tmp_path, capsys):
    result = run(tiny, tmp_path / 'run', on_bad_numbers='skip', **OPTIONS)
    assert result['params_sha256'] == by_hand(tiny, without={5})[9] != by_hand(tiny)[9]
    assert result['steps'] == 9
    assert 'the loss is nan at step 5: its batch is left out' in capsys.readouterr().err
    assert steps_of_log(tmp_path / 'run') == [1, 2, 3, 4, 6, 7, 8, 9]
    assert [line['action'] for line in bad_numbers(tmp_path / 'run')] == ['skip']


def test_rolling_back_goes_on_from_the_last_checkpoint_with_other_images(spoilt, tiny, tmp_path, capsys):
    result = run(tiny, tmp_path / 'run', on_bad_numbers='roll_back', **OPTIONS)
    assert result['steps'] == 9
    assert 'the loss is nan at step 5: back to step 3, with another order of the images' in capsys.readouterr().err
    assert steps_of_log(tmp_path / 'run') == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert result['params_sha256'] != by_hand(tiny)[9]
    seal = json.loads((tmp_path / 'run/checkpoints/9/hashes/metadata').read_text())
    assert seal['data_order'] == 1
    # Started again from a checkpoint of the second order, it keeps to it.
    spoilt.undo()
    (tmp_path / 'run/checkpoints/9').rename(tmp_path / '9')
    assert run(tiny, tmp_path / 'run', **OPTIONS)['params_sha256'] == result['params_sha256']


def test_the_other_order_has_the_same_images_in_another_order(tiny):
    config = recipe('tiny', mesh=(1, 2))
    config.update(batch_size=40)
    first, second = (batches.batches_of(config, tiny, data_order=order).records(0).tolist() for order in (0, 1))
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


@pytest.mark.parametrize('policy', ['skip', 'roll_back'])
def test_it_stops_when_it_happens_too_often(tiny, tmp_path, monkeypatch, policy):
    def place(mesh, batch, **size):
        return place_batch(mesh, dataclasses.replace(batch, lighting=np.full_like(batch.lighting, np.nan)), **size)

    monkeypatch.setattr(batches, 'place_batch', place)
    with pytest.raises(InputError, match=r'the loss is nan at step \d: stopped'):
        run(tiny, tmp_path / 'run', on_bad_numbers=policy, max_bad_numbers=2, **OPTIONS)
    actions = [line['action'] for line in bad_numbers(tmp_path / 'run')]
    assert actions == [policy, policy, 'stop']


def test_an_update_that_is_no_number_is_named_by_its_step(tiny, tmp_path):
    """A rate so high that finite gradients make infinite parameters: the loss of the next step shows it."""
    with pytest.raises(InputError, match='the update of step 1 spoilt the parameters'):
        run(tiny, tmp_path / 'run', learning_rate=3e38, **OPTIONS)
    (line,) = bad_numbers(tmp_path / 'run')
    assert line['step'] == 1
    assert list((tmp_path / 'run/checkpoints').iterdir()) == []


def test_lighting_that_is_no_number_never_reaches_the_devices(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, 'lighting_basis', lambda *_, **__: np.full((3, 3), np.nan, np.float32))
    monkeypatch.setattr(batches, 'place_batch', None)
    with pytest.raises(InputError, match='the lighting is nan at step 1'):
        run(tiny, tmp_path / 'run', **OPTIONS)


def test_a_frozen_state_is_changed_by_no_step(tiny):
    config = recipe('tiny', mesh=(1, 2))
    config.update(variant='released', width=0.0625, batch_size=8, schedule='steps', **OPTIONS)
    mesh, variant, optimizer = make_mesh(1, 2), variant_of(config), optimizer_of(config)
    mean = np.asarray(centre_crop(tiny.mean_image))
    state = create_state(variant, optimizer, mesh, num_classes=3, mean_image=mean, seed=0)
    slowed = layer_factors_of(config, examples=40)
    rates = schedule_of(config, examples=40)
    step = make_train_step(variant, optimizer, rates, mesh, num_classes=3, seed=0, slowed=slowed)
    host = batches.batches_of(config, tiny)[0]
    before = jax.device_get(state)
    bad = place_batch(mesh, Batch(host.images, host.labels, np.full_like(host.lighting, np.inf)))
    good = place_batch(mesh, Batch(host.images, host.labels, host.lighting))
    for batch in (bad, good, good):
        state, _ = step(state, batch)
    assert int(state.step) == -1  # frozen after no update
    after = jax.device_get(dataclasses.replace(state, step=before.step))
    jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize('policy', ['stop', 'roll_back'])
def test_a_checkpoint_of_spoilt_parameters_is_not_gone_on_from(tiny, tmp_path, capsys, monkeypatch, policy):
    """Saved after every step, also after step 5, whose loss was a number and whose update was none."""

    def schedule(config, *, examples):
        given = schedule_of(config, examples=examples)
        return lambda step, plateau: jnp.where(step == BAD - 1, 3e38, given(step, plateau))

    options = {**OPTIONS, 'checkpoint_every': 1, 'keep_checkpoints': 1}
    monkeypatch.setattr(loop, 'schedule_of', schedule)
    with pytest.raises(InputError, match='the update of step 5 spoilt the parameters'):
        run(tiny, tmp_path / 'run', on_bad_numbers=policy, max_bad_numbers=2, **options)
    monkeypatch.undo()
    actions = [(line['step'], line['action']) for line in bad_numbers(tmp_path / 'run')]
    assert actions == [(5, 'stop')] if policy == 'stop' else [(5, 'roll_back'), (5, 'roll_back'), (5, 'stop')]
    assert capsys.readouterr().err.count('back to step 4') == len(actions) - 1
    result = run(tiny, tmp_path / 'run', **options)
    assert re.search(r'checkpoint 5 is damaged \(\S+ was NaN or infinite when it was saved\)', capsys.readouterr().err)
    assert result['params_sha256'] == by_hand(tiny)[9]
    assert len(list((tmp_path / 'run/damaged_checkpoints').iterdir())) == len(actions)
