"""The device mesh and where every array lives on it: written once, used everywhere.

Axis 'data' splits the batch. Axis 'tower' holds AlexNet's two halves: of size 2, each device holds one tower; of size
1, one device holds both and the same program runs without an exchange.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax import InputError

DATA, TOWER = 'data', 'tower'
BATCH = P(DATA)  # images, labels and lighting: rows over 'data', copies on both towers
REPLICATED = P()


def make_mesh(data: int, tower: int) -> Mesh:
    """A mesh of data x tower of the first devices, towers of one replica next to each other.

    Raises:
      InputError: `tower` is not 1 or 2, there are too few devices, or their number is no multiple of the mesh's.
    """
    if tower not in (1, 2):
        raise InputError(f'mesh has a tower axis of {tower}: AlexNet has two towers, so it must be 1 or 2')
    if data < 1:
        raise InputError(f'mesh has a data axis of {data}: it must be at least 1')
    devices = jax.devices()
    if data * tower > len(devices):
        fits = '--config.mesh=1,2' if len(devices) >= 2 else 'configs/one_device.py (or --config.mesh=1,1)'
        raise InputError(
            f'a mesh of {data}x{tower} (data x tower) needs {data * tower} devices, but {len(devices)} '
            f'{devices[0].platform.upper()} device(s) were found: use {fits}'
        )
    if len(devices) % (data * tower):
        raise InputError(
            f'a mesh of {data}x{tower} (data x tower) would leave {len(devices) % (data * tower)} of {len(devices)} '
            f'devices idle: use one whose product divides {len(devices)}'
        )
    # Auto axes: shard_map makes the program explicit, and takes inputs that are not placed yet.
    # `jax.make_mesh` would default to Explicit ones, with which shard_map refuses those.
    return Mesh(np.array(devices[: data * tower]).reshape(data, tower), (DATA, TOWER), axis_types=(AxisType.Auto,) * 2)


def parameter_specs(tree: Any) -> Any:
    """The PartitionSpec of every leaf of a tree that holds parameters, momenta or gradients by layer.

    A leaf at .../LAYER/{kernel,bias} has its output axis, the last, over 'tower'; fc8, which both devices compute
    whole, and every other leaf (step counts, the mean image) are replicated.
    """

    def spec(path: tuple[Any, ...], leaf: Any) -> P:
        *_, layer, name = ['', *(getattr(entry, 'key', None) for entry in path)]
        if name not in ('kernel', 'bias') or layer == 'fc8':
            return REPLICATED
        return P(*[None] * (len(leaf.shape) - 1), TOWER)

    return jax.tree_util.tree_map_with_path(spec, tree)


def shardings(mesh: Mesh, specs: Any) -> Any:
    """`specs` as NamedShardings on `mesh`."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, P))


def abstract(mesh: Mesh, tree: Any, specs: Any) -> Any:
    """The leaves' shapes and dtypes with their place on `mesh`, as jax.ShapeDtypeStruct, without their values."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings(mesh, specs),
    )


def local_towers(mesh: Mesh) -> int:
    """How many of the two towers one device of `mesh` holds."""
    return 2 // mesh.shape[TOWER]


def on_cpu(mesh: Mesh) -> bool:
    """Whether `mesh` is made of the CPU's virtual devices: the one rule for what is written differently for it."""
    return mesh.devices.flat[0].platform == 'cpu'


def local_rows(mesh: Mesh, batch_size: int) -> range:
    """Which rows of a global batch this process's devices need: all of them on one process, or where towers span two.

    Raises:
      InputError: they are not one run of rows, so the mesh's devices are in an order that no host can feed.
    """
    places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,)).values()
    parts = sorted({rows[0].indices(batch_size)[:2] for rows in places if rows is not None})
    if not parts or any(before[1] != after[0] for before, after in itertools.pairwise(parts)):
        raise InputError(f'process {jax.process_index()} would need rows {parts} of a batch: no mesh of jax.devices()')
    return range(parts[0][0], parts[-1][1])


def place_batch(mesh: Mesh, batch: Any, *, batch_size: int | None = None) -> Any:
    """Puts host arrays (this process's rows first) on the mesh, rows over 'data'.

    Args:
      mesh: the mesh.
      batch: a tree of arrays of the rows that `local_rows` names.
      batch_size: rows of the global batch; None: as many as there are.
    """
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)

    def put(rows: np.ndarray) -> jax.Array:
        # Always with the global shape: without it, it is guessed from the local one.
        return jax.make_array_from_process_local_data(sharding, rows, (batch_size or len(rows), *rows.shape[1:]))

    with jax.transfer_guard('allow'):  # this is the transfer by name
        return jax.tree.map(put, batch)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Puts host values, the same in every process, on all devices of the mesh; no process asks another."""
    sharding = NamedSharding(mesh, REPLICATED)

    def put(value: Any) -> jax.Array:
        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    with jax.transfer_guard('allow'):
        return jax.tree.map(put, tree)
