"""Hashes and the manifest that holds them: what they are of, and that nothing in a checkpoint changes unseen."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
from checkpoints.states import make_state

from alexnet_jax.checkpoints.hashes import hash_array, hash_tree
from alexnet_jax.checkpoints.manifest import DamagedError, read_manifest

MANIFEST = 'checkpoints/7/hashes/metadata'


def test_hash_array_is_sha256_of_type_shape_and_bytes():
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b'<f4 (2, 3)' + kernel.tobytes()).hexdigest()
    assert hash_array(kernel) == expected
    assert hash_array(kernel.T.copy().T) == expected  # in row order always
    assert expected not in (hash_array(kernel.reshape(3, 2)), hash_array(kernel.view(np.int32)))
    lines = f'a/bias {hash_array(kernel[0])}\na/kernel {expected}'
    assert hash_tree({'a': {'kernel': kernel, 'bias': kernel[0]}}) == hashlib.sha256(lines.encode()).hexdigest()


def test_hash_tree_sees_one_bit_and_not_the_mesh():
    states = [make_state(shape, 1)[0] for shape in [(1, 1), (1, 2), (2, 2), (2, 2, 'trick'), (1, 4, 'trick')]]
    hashes = {hash_tree(state.params) for state in states}
    assert len(hashes) == 1
    params = jax.device_get(states[0].params)
    params['conv5']['bias'] = params['conv5']['bias'].copy()
    params['conv5']['bias'].view(np.uint32)[3] ^= 1
    assert hash_tree(params) not in hashes


def test_manifest_holds_every_half_s_hash_and_one_of_itself(good):
    """The hashes by hand: sha256 of dtype, shape and bytes of what each tower holds."""
    folder, values = good
    content = json.loads((folder / MANIFEST).read_text())
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


def damage_delete(path):
    shutil.rmtree(path.parent)


def damage_hash_s_name(path):
    replace(path, 'params/conv1/kernel/tower1', 'params/conv1/colonel/tower1')


def damage_own_hash_s_name(path):
    replace(path, '"whole":', '"whnle":')  # one bit


def damage_other_file(path):
    shutil.copy(path.parents[1] / '_CHECKPOINT_METADATA', path)


def damage_endless(path):
    path.write_text('[' * 100_000)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    'damage',
    [damage_delete, damage_hash_s_name, damage_own_hash_s_name, damage_other_file, damage_endless],
    ids=lambda f: f.__name__,
)
def test_read_manifest_refuses_damage_and_does_not_take_it_for_the_format_before(copied, damage):
    damage(copied / MANIFEST)
    with pytest.raises(DamagedError, match=r'^its manifest (is not as it was written|cannot be read: .*)$'):
        read_manifest(copied / 'checkpoints/7')


def test_read_manifest_refuses_a_change_of_any_field(copied):
    content = json.loads((copied / MANIFEST).read_text())
    for field in ('step', 'saved_at', 'top1_error', 'tested', 'data_order'):
        (copied / MANIFEST).write_text(json.dumps(content | {field: 1 if content[field] != 1 else 2}))
        with pytest.raises(DamagedError, match=r'^its manifest is not as it was written$'):
            read_manifest(copied / 'checkpoints/7')


def test_read_manifest_refuses_another_step_s_name(copied):
    (copied / 'checkpoints/7').rename(copied / 'checkpoints/8')
    with pytest.raises(DamagedError, match=r'^its manifest is that of step 7$'):
        read_manifest(copied / 'checkpoints/8')


def test_read_manifest_refuses_the_format_before_in_one_line(copied):
    """Until November 2026 leaves had one hash each, in plain JSON, and the error was Orbax's metric."""
    leaves = {name: hashlib.sha256(name.encode()).hexdigest() for name in ('step', 'params/conv1/kernel')}
    (copied / MANIFEST).write_text(json.dumps(leaves))
    with pytest.raises(
        DamagedError, match=r'^it is of a format from before the first release, which is no longer read$'
    ):
        read_manifest(copied / 'checkpoints/7')
