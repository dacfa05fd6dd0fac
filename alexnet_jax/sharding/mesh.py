"""The device mesh and where every array lives on it: written once, used everywhere.

Axis 'data' splits the batch. Axis 'tower' holds AlexNet's two halves: of size 2, each device holds one tower; of size
1, one device holds both and the same program runs without an exchange.

One weird trick (Krizhevsky, arXiv 1404.5997) has an axis 'model' instead: the batch is split over all devices, and the
fully connected layers, which read the images of all devices along that axis, are split over it.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.errors import InputError

DATA, TOWER, MODEL = 'data', 'tower', 'model'
REPLICATED = P()


def make_mesh(
    data: int, tower: int, *, one_weird_trick: bool = False, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Makes a mesh, data x tower, of the first of `devices` (None: all here), towers of one replica side by side.

    With `one_weird_trick` the second axis is 'model' instead of 'tower', of any size.

    Raises:
      InputError: `tower` is not 1 or 2, there are too few devices, or their number is no multiple of the mesh's.
    """
    second = MODEL if one_weird_trick else TOWER
    if second == TOWER and tower not in (1, 2):
        raise InputError(f'mesh has a tower axis of {tower}: AlexNet has two towers, so it must be 1 or 2')
    for axis, size in ((DATA, data), (second, tower)):
        if size < 1:
            raise InputError(f'mesh has a {axis} axis of {size}: it must be at least 1')
    found = jax.devices() if devices is None else devices
    wanted, mesh = data * tower, f'a mesh of {data}x{tower} (data x {second})'
    if wanted > len(found):
        kind = found[0].platform.upper()
        problem = f'{mesh} needs {wanted} devices, but {len(found)} {kind} device(s) were found'
        raise InputError(f'{problem}: use {_suggest_mesh(data, tower, len(found))}')
    if len(found) % wanted:
        raise InputError(
            f'{mesh} would leave {len(found) % wanted} of {len(found)} devices idle: '
            f'use {_suggest_mesh(data, tower, len(found))}, or another whose product divides {len(found)}'
        )
    without = {*range(jax.process_count())} - {device.process_index for device in found[:wanted]}
    if devices is None and without:
        raise InputError(
            f'{mesh} takes {wanted} of {len(found)} devices, and none of process {min(without)}: '
            f'use one that has devices of every process, such as {len(found) // tower},{tower}'
        )
    # Auto axes: shard_map makes the program explicit, and takes inputs that are not placed yet.
    # `jax.make_mesh` would default to Explicit ones, with which shard_map refuses those.
    return Mesh(np.array(found[:wanted]).reshape(data, tower), (DATA, second), axis_types=(AxisType.Auto,) * 2)


def _suggest_mesh(data: int, tower: int, devices: int) -> str:
    """Names the largest mesh that leaves none of `devices` idle and divides every batch that data x tower divides."""
    for second in (tower, min(tower, 2), 1):
        for first in range(min(data, devices // second), 0, -1):
            if data % first == 0 and devices % (first * second) == 0:
                named = f'a mesh of {first},{second}'
                return named if first * second > 1 else f'configs/one_device.py (or {named})'
    raise AssertionError('1,1 fits always')


def parse_mesh(words: Sequence[str]) -> tuple[int, int]:
    """Parses the words of --mesh=1,2 as (data, tower); `InputError` where they are no such thing."""
    sizes = [int(word) for word in words if word.isdecimal() and word.isascii()]
    if len(words) != 2 or len(sizes) != 2 or sizes[0] < 1 or sizes[1] not in (1, 2):
        raise InputError(f'--mesh={",".join(words)}: it must be two whole numbers, data,tower, tower 1 or 2')
    return sizes[0], sizes[1]


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """Returns the axes that split the rows of a batch: devices along any other have copies."""
    return (DATA, MODEL) if MODEL in mesh.axis_names else (DATA,)


def batch_spec(mesh: Mesh) -> P:
    """Returns the PartitionSpec of images, labels and lighting."""
    return P(batch_axes(mesh))


def parameter_specs(mesh: Mesh, tree: Any) -> Any:
    """Returns the PartitionSpec of every leaf of a tree that holds parameters, momenta or gradients by layer.

    With towers, a leaf at .../LAYER/{kernel,bias} has its output axis, the last, over 'tower'; fc8, which both devices
    compute whole, and every other leaf (step counts, the mean image) are replicated. With one weird trick only fc6 and
    fc7 have their output axis over 'model', and fc8's kernel its input axis, the first.
    """

    def spec(path: tuple[Any, ...], leaf: Any) -> P:
        layer, name = _layer_and_name(path)
        last = [None] * (len(leaf.shape) - 1)
        if MODEL in mesh.axis_names:
            if (layer, name) == ('fc8', 'kernel'):
                return P(MODEL, *last)
            return P(*last, MODEL) if layer in ('fc6', 'fc7') else REPLICATED
        return P(*last, TOWER) if in_towers(path) else REPLICATED

    return jax.tree_util.tree_map_with_path(spec, tree)


def in_towers(path: tuple[Any, ...]) -> bool:
    """Tells whether the leaf at `path`, of such a tree, has one half of its last axis in each tower."""
    layer, name = _layer_and_name(path)
    return name in ('kernel', 'bias') and layer != 'fc8'


def _layer_and_name(path: tuple[Any, ...]) -> tuple[Any, Any]:
    *_, layer, name = ['', *(getattr(entry, 'key', None) for entry in path)]
    return layer, name


def shardings(mesh: Mesh, specs: Any) -> Any:
    """Returns `specs` as NamedShardings on `mesh`."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, P))


def abstract(mesh: Mesh, tree: Any, specs: Any) -> Any:
    """Returns the leaves' shapes, dtypes and places on `mesh` as jax.ShapeDtypeStruct, without their values."""

    def struct(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(struct, tree, shardings(mesh, specs))


def local_towers(mesh: Mesh) -> int:
    """Returns how many of the two towers' convolutions one device of `mesh` holds."""
    return 2 // mesh.shape.get(TOWER, 1)


def local_rows(mesh: Mesh, batch_size: int) -> range:
    """Returns the rows of a global batch that this process's devices need: all, on one or where towers span two.

    Raises:
      InputError: they are not one run of rows, so the mesh's devices are in an order that no host can feed.
    """
    places = NamedSharding(mesh, batch_spec(mesh)).addressable_devices_indices_map((batch_size,)).values()
    parts = sorted({rows[0].indices(batch_size)[:2] for rows in places if rows is not None})
    if not parts or any(before[1] != after[0] for before, after in itertools.pairwise(parts)):
        raise InputError(f'process {jax.process_index()} would need rows {parts} of a batch: no mesh of jax.devices()')
    return range(parts[0][0], parts[-1][1])


def place_batch(mesh: Mesh, batch: Any, *, batch_size: int | None = None) -> Any:
    """Puts host arrays, a tree of the rows that `local_rows` names, on the mesh, rows over `batch_axes`.

    `batch_size` counts the rows of the global batch; None: as many as there are.
    """
    sharding = NamedSharding(mesh, batch_spec(mesh))
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)

    def put(rows: np.ndarray) -> jax.Array:
        # Always with the global shape: without it, it is guessed from the local one.
        return jax.make_array_from_process_local_data(sharding, rows, (batch_size or len(rows), *rows.shape[1:]))

    with jax.transfer_guard('allow'):  # this is the transfer by name
        return jax.tree.map(put, batch)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Puts host values, the same in every process, on all devices of the mesh; no process asks another."""
    return place(mesh, tree, jax.tree.map(lambda _: REPLICATED, tree))


def place(mesh: Mesh, tree: Any, specs: Any) -> Any:
    """Puts host values, the same in every process, where the tree `specs` says; no process asks another."""

    def put(value: Any, spec: P) -> jax.Array:
        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, NamedSharding(mesh, spec), lambda index: value[index])

    with jax.transfer_guard('allow'):
        return jax.tree.map(put, tree, specs)
