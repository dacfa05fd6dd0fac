"""Fingerprints of arrays: sha256 of a whole tree's leaves, and of the parts that a process holds of them."""

import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from alexnet_jax.sharding.mesh import REPLICATED, in_towers


def hash_array(value: Any) -> str:
    """Computes the sha256, in hex, of an array's dtype, shape and bytes in row order."""
    value = np.ascontiguousarray(value)
    found = hashlib.sha256(f'{value.dtype.str} {value.shape}'.encode())
    found.update(value.data)
    return found.hexdigest()


def hash_tree(tree: Any) -> str:
    """Computes the sha256, in hex, of a tree, all of which this process holds: of a line 'PATH SHA256' a leaf."""
    lines = sorted(f'{_name(path)} {hash_array(leaf)}' for path, leaf in jax.tree_util.tree_leaves_with_path(tree))
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def iter_pieces(tree: Any, *, every_copy: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Yields what this process holds of a tree of jax.Array, as (name, array), cut alike on every mesh.

    A leaf of which each tower has a half is two pieces, 'NAME/tower0' and 'NAME/tower1', the halves of its last axis,
    also where one device has both; any other leaf is one. What the mesh splits otherwise is gathered first, leaf by
    leaf: so all processes must call this together. With `every_copy` a piece comes once for each device that holds it,
    else only from the first of them.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, halved = _name(path), in_towers(path)
        for shard in _gather(leaf, halved=halved).addressable_shards:
            if not every_copy and shard.replica_id:
                continue
            value = np.asarray(shard.data)
            if not halved:
                yield name, value
                continue
            half = leaf.shape[-1] // 2
            start = shard.index[-1].start or 0
            for first in range(start, start + value.shape[-1], half):
                yield f'{name}/tower{first // half}', value[..., first - start : first - start + half]


def _gather(leaf: jax.Array, *, halved: bool) -> jax.Array:
    """Gathers a leaf of which a device holds less than a piece."""
    piece = (*leaf.shape[:-1], leaf.shape[-1] // 2) if halved else leaf.shape
    held = leaf.sharding.shard_shape(leaf.shape)
    if held in (piece, leaf.shape) or not isinstance(leaf.sharding, NamedSharding):
        return leaf
    return jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, REPLICATED))(leaf)


def list_shapes(tree: Any) -> dict[str, list[int]]:
    """Returns {path: shape} of every leaf."""
    return {_name(path): list(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='/')
