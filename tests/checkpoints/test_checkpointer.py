"""Checkpoints open on other meshes bit for bit, survive what comes after them, and are refused where damaged."""

import dataclasses
import errno
import hashlib
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.checkpoints import orbax_io
from alexnet_jax.checkpoints.checkpointer import Checkpointer, SaveError
from alexnet_jax.checkpoints.hashes import hash_leaves, hash_tree
from alexnet_jax.checkpoints.manifest import DamagedError, read_manifest
from alexnet_jax.errors import InputError
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh, parameter_specs, shardings
from alexnet_jax.training.optimizer import paper_sgd
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import abstract_state

CLASSES = 3
OPTIMIZER = paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)


def mesh_for(shape):
    """Of (data, tower), or with one weird trick of (data, model, 'trick')."""
    return make_mesh(*shape[:2], one_weird_trick=shape[2:] == ('trick',))


def shapes(shape, *, width=0.0625):
    return abstract_state(VARIANTS['paper'].scaled(width), OPTIMIZER, mesh_for(shape), num_classes=CLASSES)


def trained(shape, step):
    """A state in which every leaf is unlike a fresh one's, placed on the mesh; and its values on the host."""
    random = np.random.default_rng(step)
    noise = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), shapes(shape))
    plateau = Plateau(np.float32(0.625), np.int32(2), np.int32(1))
    values = dataclasses.replace(noise, step=np.int32(step), plateau=plateau)
    mesh = mesh_for(shape)
    placed = jax.device_put(values, shardings(mesh, parameter_specs(mesh, values)))
    return jax.tree.map(jnp.copy, placed), values


def written(folder, *steps, keep=10, errors=None, shape=(1, 2)):
    """Saves a trained state at each step; returns the last one's values."""
    with Checkpointer(folder, keep=keep) as checkpoints:
        for step in steps:
            state, values = trained(shape, step)
            checkpoints.save(state, top1_error=(errors or {}).get(step))
    return values


def restored(folder, shape, **network):
    with Checkpointer(folder, keep=10) as checkpoints:
        return checkpoints.restore(shapes(shape, **network), mesh_for(shape), step=checkpoints.steps()[-1])[0]


def assert_refused(folder, error=DamagedError, **network):
    with pytest.raises(error) as raised:
        restored(folder, (1, 2), **network)
    assert raised.type is error
    assert '\n' not in str(raised.value)


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """A run folder with a checkpoint of a 1x2 mesh at step 7, and its values."""
    folder = tmp_path_factory.mktemp('good')
    return folder, written(folder, 7)


@pytest.fixture
def copied(good, tmp_path):
    shutil.copytree(good[0], tmp_path / 'run')
    return tmp_path / 'run'


def largest_file(folder, step=7):
    return max((folder / f'checkpoints/{step}/state').rglob('*'), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize('shape', [(1, 1), (2, 2), (1, 2), (2, 2, 'trick'), (2, 4, 'trick')], ids=str)
def test_a_checkpoint_of_1x2_opens_on_another_mesh_bit_for_bit(good, shape):
    folder, values = good
    state = restored(folder, shape)
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    assert len(leaves) == 1 + 16 + 16 + 3 + 1  # step, parameters, momenta, plateau, mean image
    for (path, found), expected in zip(leaves, jax.tree.leaves(values), strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=jax.tree_util.keystr(path))
        assert found.dtype == expected.dtype
    mesh = mesh_for(shape)
    placed = shardings(mesh, parameter_specs(mesh, state))
    assert all(jax.tree.leaves(jax.tree.map(lambda leaf, where: leaf.sharding == where, state, placed)))


@pytest.mark.parametrize('shape', [(2, 2), (2, 2, 'trick'), (1, 8, 'trick')], ids=str)
def test_a_checkpoint_of_another_mesh_opens_on_1x1_bit_for_bit(tmp_path, shape):
    values = written(tmp_path, 3, shape=shape)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored(tmp_path, (1, 1))), values)


def test_what_is_saved_is_the_state_at_that_time_although_it_is_donated_at_once(tmp_path):
    state, values = trained((1, 2), 5)
    overwrite = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 1, state), donate_argnums=0)
    jax.tree.map(lambda leaf: leaf.delete(), overwrite(trained((1, 2), 6)[0]))  # compiled before, so that it is fast
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        checkpoints.save(state)
        after = jax.device_get(overwrite(state))
    assert after.params['fc6']['kernel'].max() == -1
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored(tmp_path, (1, 2))), values)


def test_the_latest_and_the_best_are_kept(tmp_path):
    def steps():
        return sorted(int(path.name) for path in (tmp_path / 'checkpoints').iterdir())

    written(tmp_path, 1, 2, 3, 4, 5, keep=2, errors={1: 0.5, 2: 0.3, 3: 0.4})
    assert steps() == [2, 4, 5]  # 2 is the best; 4 and 5, never tested, are the latest
    written(tmp_path, 6, keep=2, errors={6: 0.1})
    assert steps() == [5, 6]


@pytest.mark.parametrize('refused', ['rename', 'rmtree'])
def test_what_storage_does_not_delete_yet_is_deleted_the_next_time(tmp_path, monkeypatch, refused):
    """NFS does so with what somebody reads."""

    def refuse(path, *arguments, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, 'Directory not empty', str(path))

    where = pathlib.Path if refused == 'rename' else shutil
    with monkeypatch.context() as patch:
        rename = pathlib.Path.rename
        patch.setattr(
            where,
            refused,
            refuse if refused == 'rmtree' else lambda path, to: refuse(path) if path.name == '1' else rename(path, to),
        )
        written(tmp_path, 1, 2, keep=1)
        assert len(list((tmp_path / 'checkpoints').iterdir())) == 2
    written(tmp_path, 3, keep=1)
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['3']


def test_the_best_is_kept_although_the_run_was_stopped_before_its_test(tmp_path):
    """Started again, it tests step 2 first, and saves what is there already."""
    state, values = trained((1, 2), 2)
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        checkpoints.save(state, tested=False)
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        checkpoints.save(state, top1_error=0.1)
    written(tmp_path, 3, 4, keep=1, errors={3: 0.2, 4: 0.3})
    folders = sorted((tmp_path / 'checkpoints').iterdir())
    assert [folder.name for folder in folders] == ['2', '4']
    manifest = read_manifest(folders[0])
    # From it the test must come again: its own rule for the rate has not learned of the error.
    assert (manifest.top1_error, manifest.tested) == (0.1, False)
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        found, _ = checkpoints.restore(shapes((1, 2)), mesh_for((1, 2)), step=2)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), values)


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.restore_newest(shapes((1, 1)), make_mesh(1, 1)) is None


def test_one_flipped_bit_is_refused_and_the_checkpoint_named(copied):
    path = largest_file(copied)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert_refused(copied)


def damage_truncate(folder):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[:1000])


def damage_lose_data(folder):
    largest_file(folder).unlink()


def damage_lose_hashes(folder):
    shutil.rmtree(folder / 'checkpoints/7/hashes')


def damage_lose_a_hash(folder):
    path = folder / 'checkpoints/7/hashes/metadata'
    text = path.read_text()
    path.write_text(text.replace('params/conv1/kernel/tower1', 'params/conv1/colonel/tower1'))
    assert path.read_text() != text


def damage_hide_the_manifest_s_own_hash(folder):
    path = folder / 'checkpoints/7/hashes/metadata'
    text = path.read_text()
    path.write_text(text.replace('"whole":', '"whnle":'))  # one bit
    assert path.read_text() != text


def damage_another_file_for_the_manifest(folder):
    shutil.copy(folder / 'checkpoints/7/_CHECKPOINT_METADATA', folder / 'checkpoints/7/hashes/metadata')


def damage_endless_manifest(folder):
    (folder / 'checkpoints/7/hashes/metadata').write_text('[' * 100_000)


@pytest.mark.parametrize(
    'damage',
    [
        damage_lose_hashes,
        damage_lose_a_hash,
        damage_hide_the_manifest_s_own_hash,
        damage_another_file_for_the_manifest,
        damage_endless_manifest,
    ],
    ids=lambda f: f.__name__,
)
def test_a_damaged_manifest_is_not_taken_for_one_of_the_format_before(copied, damage):
    damage(copied)
    with pytest.raises(DamagedError, match=r'^its manifest (is not as it was written|cannot be read: .*)$'):
        read_manifest(copied / 'checkpoints/7')
    assert_refused(copied)


@pytest.mark.parametrize(
    'damage', [damage_truncate, damage_lose_data, damage_lose_hashes, damage_lose_a_hash], ids=lambda f: f.__name__
)
def test_a_damaged_checkpoint_is_refused_in_one_line(copied, damage):
    damage(copied)
    assert_refused(copied)


def test_another_network_s_checkpoint_is_refused(copied):
    assert_refused(copied, InputError, width=0.125)


def test_the_hash_sees_one_bit_and_not_the_mesh():
    states = [trained(shape, 1)[0] for shape in [(1, 1), (1, 2), (2, 2), (2, 2, 'trick'), (1, 4, 'trick')]]
    hashes = {hash_tree(state.params) for state in states}
    assert len(hashes) == 1
    params = jax.device_get(states[0].params)
    params['conv5']['bias'] = params['conv5']['bias'].copy()
    params['conv5']['bias'].view(np.uint32)[3] ^= 1
    assert hash_tree(params) not in hashes


def test_a_leaf_s_hash_is_sha256_of_its_type_shape_and_bytes():
    tree = {'a': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)}}
    expected = hashlib.sha256(b'<f4 (2, 3)' + tree['a']['kernel'].tobytes()).hexdigest()
    assert hash_leaves(tree) == {'a/kernel': expected}
    assert hash_leaves(jax.tree.map(lambda x: x.T.copy().T, tree)) == {'a/kernel': expected}  # in row order always
    others = [tree['a']['kernel'].reshape(3, 2), tree['a']['kernel'].view(np.int32)]
    assert all(hash_leaves({'a': {'kernel': other}}) != {'a/kernel': expected} for other in others)


def test_momenta_go_back_to_where_optax_reads_them(good):
    folder, values = good
    momentum = optax.tree_utils.tree_get(values.opt_state, 'trace')
    found = optax.tree_utils.tree_get(restored(folder, (1, 1)).opt_state, 'trace')
    np.testing.assert_array_equal(found['fc7']['kernel'], momentum['fc7']['kernel'])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_it_goes_back_past_all_that_is_damaged_and_says_what_was_lost(tmp_path):
    written(tmp_path, 3, 5, 7, 9)
    flip(largest_file(tmp_path, 9))
    (tmp_path / 'checkpoints/7/hashes/metadata').write_text('{')
    manifest = json.loads((tmp_path / 'checkpoints/5/hashes/metadata').read_text())
    said = []
    with Checkpointer(tmp_path, keep=10) as checkpoints:
        checkpoints.info = said.append
        state, found = checkpoints.restore_newest(shapes((1, 2)), make_mesh(1, 2))
        assert checkpoints.steps() == [3, 5]
    assert int(state.step) == found.step == 5
    np.testing.assert_array_equal(state.params['fc6']['kernel'], trained((1, 2), 5)[1].params['fc6']['kernel'])
    (line,) = said
    assert re.match(r'warning: checkpoint 9, 7 is damaged .* from step 5: 4 steps, 0 minutes, are made again', line)
    assert manifest['saved_at'] == found.saved_at
    names = sorted(path.name.split('_')[0] for path in (tmp_path / 'damaged_checkpoints').iterdir())
    assert names == ['7', '9']


def test_minutes_lost_are_those_between_the_two_saves(tmp_path):
    written(tmp_path, 3, 5)
    path = tmp_path / 'checkpoints/3/hashes/metadata'
    manifest = read_manifest(path.parents[1])
    path.write_text(dataclasses.replace(manifest, saved_at=manifest.saved_at - 7 * 60).text())
    flip(largest_file(tmp_path, 5))
    said = []
    with Checkpointer(tmp_path, keep=10) as checkpoints:
        checkpoints.info = said.append
        checkpoints.restore_newest(shapes((1, 1)), make_mesh(1, 1))
    assert '2 steps, 7 minutes, are made again' in said[0]


def test_when_all_are_damaged_it_does_not_begin_again_by_itself(tmp_path):
    written(tmp_path, 3)
    flip(largest_file(tmp_path, 3))
    with (
        Checkpointer(tmp_path, keep=10) as checkpoints,
        pytest.raises(InputError, match='every checkpoint of this run'),
    ):
        checkpoints.restore_newest(shapes((1, 1)), make_mesh(1, 1))


def test_the_manifest_holds_every_half_s_hash_and_one_of_itself(good):
    """The hashes by hand: sha256 of dtype, shape and bytes of what each tower holds."""
    folder, values = good
    content = json.loads((folder / 'checkpoints/7/hashes/metadata').read_text())
    kernel = values.params['conv2']['kernel']
    half = kernel.shape[-1] // 2
    for tower, part in enumerate((kernel[..., :half], kernel[..., half:])):
        expected = hashlib.sha256(f'<f4 {part.shape}'.encode() + part.tobytes()).hexdigest()
        assert content['pieces'][f'params/conv2/kernel/tower{tower}'] == expected
    whole = values.params['fc8']['bias']
    assert content['pieces']['params/fc8/bias'] == hashlib.sha256(b'<f4 (3,)' + whole.tobytes()).hexdigest()
    claimed = content.pop('whole')
    assert claimed == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert len(content['pieces']) == 2 * (7 * 2 * 2 + 2) + 5  # seven split layers and fc8, values and momenta; the rest
    assert content['step'] == 7


@pytest.mark.parametrize('field', ['step', 'saved_at', 'top1_error', 'tested', 'data_order'])
def test_no_field_of_the_manifest_can_be_changed(copied, field):
    path = copied / 'checkpoints/7/hashes/metadata'
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {field: 1 if content[field] != 1 else 2}))
    assert_refused(copied)


def test_a_checkpoint_under_another_step_s_name_is_refused(copied):
    (copied / 'checkpoints/7').rename(copied / 'checkpoints/8')
    assert_refused(copied)


def test_a_checkpoint_of_the_format_before_is_refused_in_one_line(good, copied):
    """Until November 2026 leaves had one hash each, in plain JSON, and the error was Orbax's metric."""
    values = good[1]
    tree = {
        'step': values.step,
        'params': values.params,
        'momentum': optax.tree_utils.tree_get(values.opt_state, 'trace'),
        'plateau': dataclasses.asdict(values.plateau),
        'mean_image': values.mean_image,
    }
    (copied / 'checkpoints/7/hashes/metadata').write_text(json.dumps(hash_leaves(tree)))
    with pytest.raises(
        DamagedError, match=r'^it is of a format from before the first release, which is no longer read$'
    ):
        read_manifest(copied / 'checkpoints/7')
    assert_refused(copied)


def test_what_killed_saves_and_deletions_have_left_goes(tmp_path):
    written(tmp_path, 3)
    for name in ('5.orbax-checkpoint-tmp', '.deleted_1'):
        (tmp_path / 'checkpoints' / name / 'state').mkdir(parents=True)
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        assert checkpoints.steps() == [3]
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['3']


def test_a_save_that_the_disk_has_no_room_for_leaves_the_older_ones(tmp_path, monkeypatch):
    written(tmp_path, 3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=10_000))
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        with pytest.raises(SaveError, match=r'checkpoint not written: 0 MB are free in .*, \d+ MB are needed'):
            checkpoints.save(trained((1, 2), 5)[0])
        assert checkpoints.steps() == [3]
    assert_equal_to(tmp_path, 3)


def test_a_save_that_fails_in_the_background_leaves_the_older_ones(tmp_path, monkeypatch, caplog):
    def hash_array(value):
        raise OSError(28, 'No space left on device')

    written(tmp_path, 3)
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        monkeypatch.setattr(orbax_io, 'hash_array', hash_array)
        checkpoints.save(trained((1, 2), 5)[0])
        with pytest.raises(SaveError, match='No space left on device'):
            checkpoints.wait()
        assert [record.getMessage() for record in caplog.records if record.exc_info] == []  # no pages beside the line
        monkeypatch.undo()
        checkpoints.save(trained((1, 2), 6)[0])
        checkpoints.wait()
        assert checkpoints.steps() == [6]
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['6']


def test_a_save_that_fails_does_not_hide_why_the_run_ends(tmp_path, monkeypatch, capsys):
    def hash_array(value):
        raise OSError(28, 'No space left on device')

    def end():
        with Checkpointer(tmp_path, keep=1) as checkpoints:
            checkpoints.save(trained((1, 2), 5)[0])
            raise InputError('the reason')

    monkeypatch.setattr(orbax_io, 'hash_array', hash_array)
    with pytest.raises(InputError, match='the reason'):
        end()
    assert 'warning: checkpoint not written: [Errno 28] No space left on device' in capsys.readouterr().err


def assert_equal_to(folder, step):
    values = trained((1, 2), step)[1]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored(folder, (1, 2))), values)
