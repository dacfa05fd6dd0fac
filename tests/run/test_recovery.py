"""Non-finite numbers: the step is named, its images are written down, and the run does what its config says."""

import dataclasses
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run.short_runs import make_run, train

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.errors import InputError
from alexnet_jax.run import batches
from alexnet_jax.sharding.mesh import place_batch, replicate
from alexnet_jax.training import step
from alexnet_jax.training.step import cross_entropy

pytestmark = pytest.mark.slow

BAD = 5  # the step whose batch is spoilt
OPTIONS = {'steps': 9, 'checkpoint_every': 3, 'evaluate_every': 9, 'log_every': 1}


def spoil_batch(monkeypatch, change):
    """The first batch that is made for step BAD becomes change(batch) on its way to the devices."""
    counted = []

    def place(mesh, batch, **size):
        counted.append(1)
        if len(counted) == BAD:
            batch = change(batch)
        return place_batch(mesh, batch, **size)

    monkeypatch.setattr(batches, 'place_batch', place)


@pytest.fixture
def spoilt(monkeypatch):
    """The first batch that is made for step BAD turns the loss to NaN."""
    spoil_batch(monkeypatch, lambda batch: dataclasses.replace(batch, lighting=np.full_like(batch.lighting, np.nan)))
    return monkeypatch


def by_hand(tiny, *, without=(), drops=(0,) * 9, clip_norm=None):
    """Parameters after each of 9 steps from plain calls of the training step, some batches left out.

    `drops` says for each of the 9 steps how often the paper's rule has dropped the rate before it.
    """
    plain = make_run(clip_norm=clip_norm, **OPTIONS)
    state, hashes = plain.create_state(np.asarray(centre_crop(tiny.mean_image))), {}
    for number in range(1, 10):
        if number in without:
            state = dataclasses.replace(state, step=state.step + 1)
        else:
            plateau = dataclasses.replace(state.plateau, drops=replicate(plain.mesh, np.int32(drops[number - 1])))
            state = dataclasses.replace(state, plateau=plateau)
            batch = batches.make_batches(plain, tiny)[number - 1]
            placed = place_batch(plain.mesh, batches.make_batch(batch))
            state, _ = plain.compile(state, placed)(state, placed)
        hashes[number] = hash_tree(state.params)
    return hashes


@pytest.fixture(scope='module')
def undisturbed(tiny):
    """sha256 of the parameters that nine good steps come to."""
    return by_hand(tiny)[9]


def read_non_finite(workdir):
    return [json.loads(line) for line in (workdir / 'non_finite.jsonl').read_text().splitlines()]


def steps_of_log(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [line['step'] for line in lines if line['split'] == 'train']


def test_recover_stops_with_the_state_before_saved_and_the_images_named(undisturbed, spoilt, tiny, tmp_path):
    with pytest.raises(InputError, match='the loss is nan at step 5: stopped; the state before it is checkpoint 4'):
        train(tiny, tmp_path / 'run', **OPTIONS)
    assert sorted(path.name for path in (tmp_path / 'run/checkpoints').iterdir()) == ['3', '4']
    (line,) = read_non_finite(tmp_path / 'run')
    order = np.random.default_rng([0, 0, 0x0DE4]).permutation(40)
    assert line == {'step': 5, 'number': 'loss', 'value': 'nan', 'action': 'stop', 'records': order[32:40].tolist()}
    assert steps_of_log(tmp_path / 'run') == [1, 2, 3, 4]
    spoilt.undo()
    # What was saved is the state after 4 steps and nothing else: going on from it comes to an undisturbed run's end.
    assert train(tiny, tmp_path / 'run', **OPTIONS)['params_sha256'] == undisturbed


def test_recover_skips_that_batch_and_nothing_else(undisturbed, spoilt, tiny, tmp_path, capsys):
    result = train(tiny, tmp_path / 'run', on_non_finite='skip', **OPTIONS)
    assert result['params_sha256'] == by_hand(tiny, without={5})[9] != undisturbed
    assert result['steps'] == 9
    assert 'the loss is nan at step 5: its batch is left out' in capsys.readouterr().err
    assert steps_of_log(tmp_path / 'run') == [1, 2, 3, 4, 6, 7, 8, 9]
    assert [line['action'] for line in read_non_finite(tmp_path / 'run')] == ['skip']


def test_recover_rolls_back_to_the_last_checkpoint_and_another_order(undisturbed, spoilt, tiny, tmp_path, capsys):
    result = train(tiny, tmp_path / 'run', on_non_finite='roll_back', **OPTIONS)
    assert result['steps'] == 9
    assert 'the loss is nan at step 5: back to step 3, with another order of the images' in capsys.readouterr().err
    assert steps_of_log(tmp_path / 'run') == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert result['params_sha256'] != undisturbed
    seal = json.loads((tmp_path / 'run/checkpoints/9/hashes/metadata').read_text())
    assert seal['data_order'] == 1
    # Started again from a checkpoint of the second order, it keeps to it.
    spoilt.undo()
    (tmp_path / 'run/checkpoints/9').rename(tmp_path / '9')
    assert train(tiny, tmp_path / 'run', **OPTIONS)['params_sha256'] == result['params_sha256']


@pytest.mark.parametrize('policy', ['skip', pytest.param('roll_back', marks=pytest.mark.repeats)])
def test_recover_stops_when_it_happens_too_often(tiny, tmp_path, monkeypatch, policy):
    def place(mesh, batch, **size):
        return place_batch(mesh, dataclasses.replace(batch, lighting=np.full_like(batch.lighting, np.nan)), **size)

    monkeypatch.setattr(batches, 'place_batch', place)
    with pytest.raises(InputError, match=r'the loss is nan at step \d: stopped'):
        train(tiny, tmp_path / 'run', on_non_finite=policy, max_non_finite=2, **OPTIONS)
    actions = [line['action'] for line in read_non_finite(tmp_path / 'run')]
    assert actions == [policy, policy, 'stop']


def test_recover_names_the_step_of_a_non_finite_update(undisturbed, tiny, tmp_path):
    """A rate so high that finite gradients make infinite parameters: the loss of the next step shows it."""
    with pytest.raises(InputError, match=r'step 2: stopped; the update of step 1 spoilt .* before it is checkpoint 0,'):
        train(tiny, tmp_path / 'run', spoilt=(1,), **OPTIONS)
    (line,) = read_non_finite(tmp_path / 'run')
    assert line['step'] == 1
    assert [path.name for path in (tmp_path / 'run/checkpoints').iterdir()] == ['0']
    # What was saved is the state at the beginning.
    assert train(tiny, tmp_path / 'run', **OPTIONS)['params_sha256'] == undisturbed


def test_recover_stops_with_the_state_before_a_non_finite_update(undisturbed, tiny, tmp_path, capsys):
    options = {**OPTIONS, 'checkpoint_every': 5}
    with pytest.raises(InputError, match=r'the update of step 8 spoilt the parameters, the .* it is checkpoint 7, '):
        train(tiny, tmp_path / 'run', spoilt=(8,), **options)
    assert 'spoilt the parameters; back to step 5, from which steps 6 to 7 are made again' in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / 'run/checkpoints').iterdir()) == ['5', '7']
    (line,) = read_non_finite(tmp_path / 'run')
    second = np.random.default_rng([0, 1, 0x0DE4]).permutation(40)
    assert line['records'] == second[16:24].tolist()
    assert train(tiny, tmp_path / 'run', **OPTIONS)['params_sha256'] == undisturbed


def test_recover_skips_such_an_update_and_makes_the_steps_before_it_again(spoilt, tiny, tmp_path, capsys):
    """No checkpoint, so from the beginning; and step 5, left out before, is again, though its batch would do now."""
    options = {**OPTIONS, 'checkpoint_every': 9}
    result = train(tiny, tmp_path / 'run', spoilt=(7,), on_non_finite='skip', **options)
    assert result['params_sha256'] == by_hand(tiny, without={5, 7})[9]
    said = capsys.readouterr().err
    assert said.count('the update of step 7 spoilt the parameters; back to step 0, from which steps 1 to 6 are') == 1
    assert 'step 8: the batch of step 7 is left out' in said
    assert [(line['step'], line['action']) for line in read_non_finite(tmp_path / 'run')] == [(5, 'skip'), (7, 'skip')]
    assert steps_of_log(tmp_path / 'run') == [1, 2, 3, 4, 6, 7, 8, 9]


def test_recover_makes_steps_again_with_the_rates_that_they_had(tiny, tmp_path):
    """The paper's rule halves the rate after tests that no checkpoint follows: what it knew is not in the last one."""
    errors = itertools.chain([0.5], itertools.repeat(0.6))  # the first test is the best

    def change_result(result):
        return dataclasses.replace(result, top1_error=next(errors))

    options = {**OPTIONS, 'evaluate_every': 2, 'checkpoint_every': 9, 'patience': 1, 'on_non_finite': 'skip'}
    result = train(tiny, tmp_path / 'run', change_result=change_result, spoilt=(8,), **options)
    assert sorted(path.name for path in (tmp_path / 'run/checkpoints').iterdir()) == ['2', '9']
    drops = [0] * 4 + [1] * 2 + [2] * 2 + [3]  # the test of step 8, left out, is made as well
    assert result['params_sha256'] == by_hand(tiny, without={8}, drops=drops)[9]


def test_recover_names_the_first_of_several_non_finite_updates(undisturbed, tiny, tmp_path):
    """A unit that is always off has an infinite bias from step 4 on, which no loss shows before step 8."""

    def change_state(number, state):
        if number != 4:
            return state
        bias = state.params['fc6']['bias']
        value = jax.device_put(np.where(np.arange(bias.size) == 0, -np.inf, bias), bias.sharding)
        params = state.params | {'fc6': state.params['fc6'] | {'bias': value}}
        return dataclasses.replace(state, params=params)

    spoilt = {'spoilt': (7,), 'change_state': change_state}
    with pytest.raises(InputError, match=r'step 8: stopped; the update of step 4 spoilt .* before it is checkpoint 3,'):
        train(tiny, tmp_path / 'run', **spoilt, **{**OPTIONS, 'checkpoint_every': 2})
    assert [line['step'] for line in read_non_finite(tmp_path / 'run')] == [4]
    assert train(tiny, tmp_path / 'run', **OPTIONS)['params_sha256'] == undisturbed


def test_recover_tests_and_saves_the_last_step_where_its_batch_is_left_out(tiny, tmp_path):
    """No loss follows it: the test shows it."""
    result = train(tiny, tmp_path / 'run', spoilt=(9,), on_non_finite='skip', **OPTIONS)
    assert result['steps'] == 9
    assert result['params_sha256'] == by_hand(tiny, without={9})[8]
    assert [(line['step'], line['number']) for line in read_non_finite(tmp_path / 'run')] == [(9, 'validation loss')]
    assert (tmp_path / 'run/checkpoints/9').is_dir()


@pytest.mark.parametrize(
    'clip_norm', [pytest.param(None, marks=pytest.mark.repeats), 1e3], ids=['not clipped', 'clipped']
)
def test_recover_sees_non_finite_gradients_at_once_where_their_norm_is_known(
    tiny, tmp_path, monkeypatch, capsys, clip_norm
):
    """Labels above 100 have the loss of those below, and a gradient that is none: the root's at 0."""

    def rooted(logits, labels):
        bad = labels >= 100
        zero = logits.sum(axis=1) - jax.lax.stop_gradient(logits.sum(axis=1))
        root = jnp.where(bad, jnp.sqrt(jnp.where(bad, jnp.abs(zero), 1.0)), 0.0)
        return cross_entropy(logits, labels % 100) + root

    monkeypatch.setattr(step, 'cross_entropy', rooted)
    spoil_batch(monkeypatch, lambda batch: dataclasses.replace(batch, labels=batch.labels + 100))
    result = train(tiny, tmp_path / 'run', on_non_finite='skip', clip_norm=clip_norm, **OPTIONS)
    assert result['params_sha256'] == by_hand(tiny, without={5}, clip_norm=clip_norm)[9]
    (line,) = read_non_finite(tmp_path / 'run')
    assert (line['step'], line['number']) == (5, 'gradient norm' if clip_norm else 'loss')
    assert ('are made again' in capsys.readouterr().err) == (clip_norm is None)


@pytest.mark.parametrize('policy', [pytest.param('stop', marks=pytest.mark.repeats), 'roll_back'])
def test_recover_goes_on_from_no_checkpoint_of_spoilt_parameters(undisturbed, tiny, tmp_path, capsys, policy):
    """Saved after every step, also after step 5, whose loss was a number and whose update was none."""
    options = {**OPTIONS, 'checkpoint_every': 1, 'keep_checkpoints': 1}
    with pytest.raises(InputError, match=r'the update of step 5 spoilt the parameters, .* is checkpoint 4'):
        train(tiny, tmp_path / 'run', spoilt=(BAD,), on_non_finite=policy, max_non_finite=2, **options)
    actions = [(line['step'], line['action']) for line in read_non_finite(tmp_path / 'run')]
    assert actions == [(5, 'stop')] if policy == 'stop' else [(5, 'roll_back'), (5, 'roll_back'), (5, 'stop')]
    said = capsys.readouterr().err
    assert said.count('back to step 4, with another order') == len(actions) - 1
    assert re.search(r'checkpoint 5 is damaged \(\S+ was NaN or infinite when it was saved\)', said)
    result = train(tiny, tmp_path / 'run', **options)
    assert result['params_sha256'] == undisturbed
    assert len(list((tmp_path / 'run/damaged_checkpoints').iterdir())) == len(actions)
