"""Checkpoints open on other meshes bit for bit, survive what comes after them, and are refused where damaged."""

import dataclasses
import errno
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checkpoints.states import (
    assert_same_bits,
    flip_bit,
    largest_file,
    list_names,
    make_abstract,
    make_state,
    mesh_for,
    write_empty,
)

from alexnet_jax.checkpoints import orbax_io
from alexnet_jax.checkpoints.checkpointer import Checkpointer, SaveError
from alexnet_jax.checkpoints.inspect import format_checkpoints
from alexnet_jax.checkpoints.manifest import DamagedError, list_steps, read_manifest
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.mesh import parameter_specs, shardings


def save(folder, *steps, keep=10, errors=None, shape=(1, 2)):
    """Saves a state at each step; returns the last one's values."""
    with Checkpointer(folder, keep=keep) as checkpointer:
        for step in steps:
            state, values = make_state(shape, step)
            checkpointer.save(state, top1_error=(errors or {}).get(step))
    return values


def restore(folder, shape, **network):
    step = list_steps(folder)[-1]
    with Checkpointer(folder, keep=10) as checkpointer:
        return checkpointer.restore(make_abstract(shape, **network), read_manifest(folder / f'checkpoints/{step}'))


def assert_refused(folder, error=DamagedError, **network):
    with pytest.raises(error) as raised:
        restore(folder, (1, 2), **network)
    assert raised.type is error
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'shape',
    [
        (1, 1),
        (2, 2),
        (2, 2, 'trick'),
        pytest.param((1, 2), marks=pytest.mark.repeats),
        pytest.param((2, 4, 'trick'), marks=pytest.mark.repeats),
    ],
    ids=str,
)
def test_checkpointer_restores_1x2_on_another_mesh_bit_for_bit(good, shape):
    folder, values = good
    state = restore(folder, shape)
    assert len(jax.tree.leaves(state)) == 1 + 16 + 16 + 3 + 1  # step, parameters, momenta, plateau, mean image
    assert_same_bits(state, values)
    momentum, expected = (optax.tree_utils.tree_get(each.opt_state, 'trace') for each in (state, values))
    np.testing.assert_array_equal(momentum['fc7']['kernel'], expected['fc7']['kernel'])  # where Optax reads it
    mesh = mesh_for(shape)
    placed = shardings(mesh, parameter_specs(mesh, state))
    assert all(jax.tree.leaves(jax.tree.map(lambda leaf, where: leaf.sharding == where, state, placed)))


@pytest.mark.parametrize(
    'shape',
    [
        (2, 2, 'trick'),
        pytest.param((2, 2), marks=pytest.mark.repeats),
        pytest.param((1, 8, 'trick'), marks=pytest.mark.repeats),
    ],
    ids=str,
)
def test_checkpointer_restores_another_mesh_on_1x1_bit_for_bit(tmp_path, shape):
    values = save(tmp_path, 3, shape=shape)
    assert_same_bits(restore(tmp_path, (1, 1)), values)


def test_save_copies_the_state_before_it_is_donated(tmp_path):
    overwrite = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 1, state), donate_argnums=0)
    state, values = make_state((1, 2), 5)
    state = jax.tree.map(jnp.copy, state)  # else the CPU's devices may share the host's memory
    overwrite(jax.tree.map(jnp.copy, state))  # compiled before, so that it is fast
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(state)
        after = jax.device_get(overwrite(state))
    assert after.params['fc6']['kernel'].max() == -1
    assert_same_bits(restore(tmp_path, (1, 2)), values)


def test_checkpointer_keeps_the_latest_and_the_best(tmp_path):
    for step, error in enumerate([0.5, 0.3, 0.4, None, None], start=1):
        write_empty(tmp_path, step, top1_error=error)
        with Checkpointer(tmp_path, keep=2):
            pass
    assert list_names(tmp_path) == ['2', '4', '5']  # 2 is the best; 4 and 5, never tested, are the latest
    write_empty(tmp_path, 6, top1_error=0.1)
    with Checkpointer(tmp_path, keep=2):
        pass
    assert list_names(tmp_path) == ['5', '6']


def test_checkpointer_keeps_the_permanent_ones_besides(tmp_path):
    def delete_old(**options):
        with Checkpointer(tmp_path, keep=1, **options):
            pass
        return list_names(tmp_path)

    for step in (2, 3):
        write_empty(tmp_path, step)
    write_empty(tmp_path, 5, top1_error=0.1)
    write_empty(tmp_path, 6, top1_error=0.2)
    assert delete_old(is_permanent=lambda step: step % 3 == 0) == ['3', '5', '6']  # 5 is the best, 6 the latest
    write_empty(tmp_path, 7, permanent=True)
    write_empty(tmp_path, 8)
    assert delete_old() == ['5', '7', '8']  # by what it says of itself, whatever the run is now started with


def test_save_says_in_the_manifest_that_a_checkpoint_is_permanent(tmp_path):
    with Checkpointer(tmp_path, keep=1, is_permanent=lambda step: step % 3 == 0) as checkpointer:
        for step in (3, 4):
            checkpointer.save(make_state((1, 1), step)[0])
    assert [read_manifest(tmp_path / f'checkpoints/{step}').permanent for step in (3, 4)] == [True, False]
    table, whole = format_checkpoints(tmp_path, verify=False)
    assert whole
    assert [line.split('  ')[-1].strip() for line in table.splitlines()] == ['state', 'ok, permanent', 'ok']


@pytest.mark.parametrize('refused', ['rename', 'rmtree'])
def test_checkpointer_deletes_the_next_time_what_storage_refuses_now(tmp_path, monkeypatch, refused):
    """NFS does so with what somebody reads."""

    def refuse(path, *arguments, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, 'Directory not empty', str(path))

    for step in (1, 2):
        write_empty(tmp_path, step)
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path if refused == 'rename' else shutil, refused, refuse)
        with Checkpointer(tmp_path, keep=1):
            pass
        assert len(list_names(tmp_path)) == 2
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.wait()
    assert list_names(tmp_path) == ['2']


def test_save_again_adds_the_error_of_a_test_that_was_left_out(tmp_path):
    """The run was stopped before it; started again, it tests step 2 first, and saves what is there already."""
    state, values = make_state((1, 2), 2)
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(state, tested=False)
        checkpointer.save(state, top1_error=0.1)
    for step, error in ((3, 0.2), (4, 0.3)):
        write_empty(tmp_path, step, top1_error=error)
    with Checkpointer(tmp_path, keep=1):
        pass
    assert list_names(tmp_path) == ['2', '4']  # 2 is the best
    manifest = read_manifest(tmp_path / 'checkpoints/2')
    # From it the test must come again: its own rule for the rate has not learned of the error.
    assert (manifest.top1_error, manifest.tested) == (0.1, False)
    shutil.rmtree(tmp_path / 'checkpoints/4')
    assert_same_bits(restore(tmp_path, (1, 2)), values)


def test_restore_newest_finds_nothing_in_an_empty_folder(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        assert checkpointer.restore_newest(make_abstract((1, 1))) is None


def damage_flip(path):
    flip_bit(path)


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


def damage_delete(path):
    path.unlink()


@pytest.mark.parametrize('damage', [damage_flip, damage_truncate, damage_delete], ids=lambda f: f.__name__)
def test_restore_refuses_damaged_arrays_in_one_line(copied, damage):
    damage(largest_file(copied, 7))
    assert_refused(copied)


def test_restore_needs_none_of_orbax_s_commit_success_files(good, copied):
    files = list((copied / 'checkpoints/7').rglob('commit_success.txt'))
    assert [file.parent.name for file in sorted(files)] == ['7', 'hashes', 'state']
    for file in files:
        file.unlink()
    assert_same_bits(restore(copied, (1, 2)), good[1])


def test_restore_refuses_another_network(copied):
    assert_refused(copied, InputError, width=0.125)


def test_restore_newest_goes_back_past_all_damage_and_says_what_was_lost(tmp_path):
    values = save(tmp_path, 5)
    save(tmp_path, 9)
    for step in (3, 7):
        write_empty(tmp_path, step)
    flip_bit(largest_file(tmp_path, 9))
    (tmp_path / 'checkpoints/7/hashes/metadata').write_text('{')
    newest, good = (read_manifest(tmp_path / f'checkpoints/{step}') for step in (9, 5))
    good = dataclasses.replace(good, saved_at=newest.saved_at - 7 * 60)
    good.write(tmp_path / 'checkpoints/5/hashes')
    lines = []
    with Checkpointer(tmp_path, keep=10) as checkpointer:
        checkpointer.info = lines.append
        state, found = checkpointer.restore_newest(make_abstract((1, 2)))
        assert list_steps(tmp_path) == [3, 5]
    assert found == good
    assert_same_bits(state, values)
    (line,) = lines
    assert re.match(r'warning: checkpoint 9, 7 is damaged .* from step 5: 4 steps, 7 minutes, are made again', line)
    names = sorted(path.name.split('_')[0] for path in (tmp_path / 'damaged_checkpoints').iterdir())
    assert names == ['7', '9']


def test_restore_newest_does_not_begin_again_where_all_are_damaged(copied):
    flip_bit(largest_file(copied, 7))
    with (
        Checkpointer(copied, keep=10) as checkpointer,
        pytest.raises(InputError, match='every checkpoint of this run'),
    ):
        checkpointer.restore_newest(make_abstract((1, 1)))


def test_checkpointer_deletes_what_killed_saves_and_deletions_have_left(tmp_path):
    write_empty(tmp_path, 3)
    for name in ('5.orbax-checkpoint-tmp', '.deleted_1'):
        (tmp_path / 'checkpoints' / name / 'state').mkdir(parents=True)
    with Checkpointer(tmp_path, keep=1):
        assert list_names(tmp_path) == ['3']


def test_save_without_room_on_the_disk_leaves_the_older_ones(good, copied, monkeypatch):
    usage = shutil.disk_usage(copied)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=10_000))
    with Checkpointer(copied, keep=1) as checkpointer:
        with pytest.raises(SaveError, match=r'checkpoint not written: 0 MB are free in .*, \d+ MB are needed'):
            checkpointer.save(make_state((1, 2), 8)[0])
        assert list_steps(copied) == [7]
    assert_same_bits(restore(copied, (1, 2)), good[1])


@pytest.fixture
def full_disk(monkeypatch):
    def hash_array(value):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(orbax_io, 'hash_array', hash_array)


def test_save_that_fails_in_the_background_leaves_the_older_ones(copied, full_disk, monkeypatch, caplog):
    with Checkpointer(copied, keep=1) as checkpointer:
        checkpointer.save(make_state((1, 2), 8)[0])
        with pytest.raises(SaveError, match='No space left on device'):
            checkpointer.wait()
        assert [record.getMessage() for record in caplog.records if record.exc_info] == []  # no pages beside the line
        assert list_steps(copied) == [7]
        monkeypatch.undo()
        checkpointer.save(make_state((1, 2), 9)[0])
        checkpointer.wait()
        assert list_names(copied) == ['9']


def test_save_that_fails_does_not_hide_why_the_run_ends(tmp_path, full_disk, capsys):
    def end():
        with Checkpointer(tmp_path, keep=1) as checkpointer:
            checkpointer.save(make_state((1, 2), 5)[0])
            raise InputError('the reason')

    with pytest.raises(InputError, match='the reason'):
        end()
    assert 'warning: checkpoint not written: [Errno 28] No space left on device' in capsys.readouterr().err


@pytest.mark.parametrize('factors', [{}, {'conv1': 0.0}, {'conv1': 0.0, 'fc8': 5.0}])
def test_checkpointer_refuses_a_checkpoint_of_other_rate_factors(tmp_path, factors):
    """Frozen layers have none of the momenta, factors leave all shapes as they are: both are refused alike."""
    state, values = make_state((1, 1), 3)
    with Checkpointer(tmp_path, keep=1, rate_factors={'conv1': 0.0, 'fc8': 10.0}) as checkpointer:
        checkpointer.save(state)
        checkpointer.wait()
        found, manifest = checkpointer.restore_newest(make_abstract((1, 1)))
    assert_same_bits(found, values)
    assert manifest.rate_factors == {'conv1': 0.0, 'fc8': 10.0}
    said = r"with the rate factors \{'conv1': 0\.0, 'fc8': 10\.0\} \(0: frozen\), and this run has .*: go on with the"
    with Checkpointer(tmp_path, keep=1, rate_factors=factors) as other:
        with pytest.raises(InputError, match=said) as error:
            other.restore_newest(make_abstract((1, 1)))
        assert len(str(error.value).splitlines()) == 1
    assert list_names(tmp_path) == ['3']
