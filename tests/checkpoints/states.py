"""States to be saved: full of noise, so that no leaf is like a fresh one's; and checkpoints without arrays."""

import dataclasses
import time

import jax
import numpy as np

from alexnet_jax.checkpoints.manifest import Manifest
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


def make_abstract(shape, *, width=0.0625):
    return abstract_state(VARIANTS['paper'].scaled(width), OPTIMIZER, mesh_for(shape), num_classes=CLASSES)


def make_state(shape, step):
    """A state placed on the mesh, and its values on the host."""
    random = np.random.default_rng(step)
    noise = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), make_abstract(shape))
    plateau = Plateau(np.float32(0.625), np.int32(2), np.int32(1))
    values = dataclasses.replace(noise, step=np.int32(step), plateau=plateau)
    mesh = mesh_for(shape)
    return jax.device_put(values, shardings(mesh, parameter_specs(mesh, values))), values


def assert_same_bits(state, values):
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    for (path, found), expected in zip(leaves, jax.tree.leaves(values), strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes(), jax.tree_util.keystr(path)


def write_empty(folder, step, *, top1_error=None, permanent=False):
    """A checkpoint that holds nothing but its manifest."""
    path = folder / f'checkpoints/{step}/hashes'
    path.mkdir(parents=True)
    Manifest(step, time.time(), {}, {}, top1_error, permanent=permanent).write(path)


def largest_file(folder, step):
    return max((folder / f'checkpoints/{step}/state').rglob('*'), key=lambda path: path.stat().st_size)


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def list_names(folder):
    return sorted(path.name for path in (folder / 'checkpoints').iterdir())
