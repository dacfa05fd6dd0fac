"""Every word that devices say to each other in a training step. No other file calls a collective.

The towers talk in four places, as the two GPUs of 2012 did (paper section 3.2 and figure 2): before conv3, fc6, fc7
and fc8, where each gathers the channels of the other. Data-parallel replicas talk once: the mean of the loss, and of
the gradients behind it. What the backward pass says follows by differentiation, and shard_map's replication check
proves that it is complete.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array, lax

from alexnet_jax.parallel.mesh import DATA, TOWER, parameter_specs

EXCHANGES = ('conv3', 'fc6', 'fc7', 'fc8')
SCOPE = 'exchange_'  # of every exchange in profiles, traced and compiled programs


def gather_towers(x: Array, layer: str) -> Array:
    """The channels of both towers, (..., c) -> (..., 2c), tower 0's first; to be called inside shard_map.

    On a 'tower' axis of size 1 the device has both and the gather moves nothing.
    """
    # Behind fc8's gather both devices compute the same thing. 'invarying' states that, so the loss is provably equal on
    # both towers and its gradient needs no further reduction; the other three feed each tower's own weights.
    to = 'invarying' if layer == 'fc8' else 'varying'
    if to == 'varying' and lax.axis_size(TOWER) == 1:
        return x
    # Along a new first axis, so that what arrives is one tower's array after the other's. Along the channels, XLA would
    # lay out both sides of the gather channel by channel, and the pooling before it would write so: 8x slower on CPU.
    with jax.named_scope(SCOPE + layer):
        towers = lax.all_gather(x, TOWER, to=to)
    return jax.numpy.moveaxis(towers, 0, -2).reshape(*x.shape[:-1], -1)


def copy_to_replicas(params: Any) -> Any:
    """Marks parameters, equal on all data-parallel replicas, as each replica's own copy; moves nothing.

    Its transpose is what data parallelism consists of: the sum of the replicas' gradients. Left implicit, JAX would
    place it wherever a parameter first meets a replica's images, which may be after it was broadcast to their size.
    """
    return jax.tree.map(lambda leaf: lax.pcast(leaf, DATA, to='varying'), params)


def copy_to_towers(images: Array) -> Array:
    """Marks images, equal on both towers, as each tower's own copy; moves nothing.

    Nobody wants the gradient of an image. Unmarked, a layer that writes its own gradient would have to sum it over the
    towers, which share the image.
    """
    return lax.pcast(images, TOWER, to='varying')


def mean_over_data(x: Array) -> Array:
    """The mean over data-parallel replicas. Inside the differentiated loss, so that gradients come out averaged."""
    return lax.pmean(x, DATA)


def clip(grads: Any, norm: float) -> Any:
    """Gradients, equal on all replicas, scaled so that their norm over both towers is at most `norm`.

    Only where clipping is asked for: AlexNet was trained without. Its norm is the one number that no tower knows alone;
    it is the fifth thing that they tell each other, four bytes.
    """
    own: Any = 0.0
    shared: Any = 0.0
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        square = jax.numpy.sum(jax.numpy.square(grad))
        if TOWER in parameter_specs({path[0].key: {path[1].key: grad}})[path[0].key][path[1].key]:
            own = own + square
        else:
            shared = shared + square  # both have it, so it counts once
    with jax.named_scope(f'{SCOPE}clip'):
        total = lax.psum(own, TOWER) + shared
    scale = jax.numpy.minimum(1.0, norm / jax.numpy.sqrt(total))
    return jax.tree.map(lambda grad: grad * scale.astype(grad.dtype), grads)


def tower_ids(local_towers: int) -> Array:
    """int32 (local_towers,): which towers this device holds; to be called inside shard_map."""
    return lax.axis_index(TOWER) * local_towers + jax.numpy.arange(local_towers)


def row_ids(local_rows: int) -> Array:
    """int32 (local_rows,): which rows of the global batch this device holds; to be called inside shard_map."""
    return lax.axis_index(DATA) * local_rows + jax.numpy.arange(local_rows)
