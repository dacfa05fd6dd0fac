"""Holds every collective of a training step: no other file calls one.

The towers talk in four places, as the two GPUs of 2012 did (paper section 3.2 and figure 2): before conv3, fc6, fc7
and fc8, where each gathers the channels of the other. Data-parallel replicas talk once: the mean of the loss, and of
the gradients behind it. What the backward pass says follows by differentiation, and shard_map's replication check
proves that it is complete.

With one weird trick (Krizhevsky, arXiv 1404.5997) devices along 'model' have different images. They talk in three
places: before fc6 each gathers the others' images, before fc7 the others' units, and behind fc8 each gets the logits
of its own images, summed over the units of all.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from alexnet_jax.sharding.mesh import DATA, MODEL, TOWER, batch_axes, parameter_specs

EXCHANGES = ('conv3', 'fc6', 'fc7', 'fc8')
NORMS = ('clip', 'lars')  # what is sent besides, where a setting asks for it: sums of squares
SCOPE = 'exchange_'  # of every exchange in profiles, traced and compiled programs


def make_exchange(mesh: Mesh) -> Callable[[Array, str], Array]:
    """Returns what the network on `mesh` calls as exchange(x, layer) before a layer that reads both towers."""
    return gather_model if MODEL in mesh.axis_names else gather_towers


def gather_towers(x: Array, layer: str) -> Array:
    """Gathers the channels of both towers, (..., c) -> (..., 2c), tower 0's first; to be called inside shard_map.

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
    return jnp.moveaxis(towers, 0, -2).reshape(*x.shape[:-1], -1)


def gather_model(x: Array, layer: str) -> Array:
    """Gathers along 'model' for one weird trick, to be called inside shard_map; on an axis of size 1 nothing moves.

    Before fc6 (b, ...) -> (b * model, ...), the images of all; before fc7 (b, c) -> (b, c * model), the units of all.
    Conv3 has both towers already, and fc8 multiplies the units that are there: see `scatter_logits`.
    """
    if layer not in ('fc6', 'fc7') or lax.axis_size(MODEL) == 1:
        return x
    with jax.named_scope(SCOPE + layer):
        return lax.all_gather(x, MODEL, axis=0 if layer == 'fc6' else 1, tiled=True)


def make_combine(mesh: Mesh) -> Callable[[Array], Array]:
    """Returns what the network on `mesh` does with the product of fc8's kernel and the units that a device has."""
    return scatter_logits if MODEL in mesh.axis_names else lambda logits: logits


def scatter_logits(products: Array) -> Array:
    """Sums (b * model, classes), of this device's units -> (b, classes), of all units, for its own images."""
    with jax.named_scope(f'{SCOPE}fc8'):
        return lax.psum_scatter(products, MODEL, tiled=True)


def copy_to_replicas(params: Any, mesh: Mesh) -> Any:
    """Marks parameters, equal on all devices with other images, as each device's own copy; moves nothing.

    Its transpose is what data parallelism consists of: the sum of the replicas' gradients. Left implicit, JAX would
    place it wherever a parameter first meets a replica's images, which may be after it was broadcast to their size.
    """

    def copy(leaf: Array, spec: Any) -> Array:
        return lax.pcast(leaf, tuple(axis for axis in batch_axes(mesh) if axis not in spec), to='varying')

    return jax.tree.map(copy, params, parameter_specs(mesh, params))


def copy_like_kernel(x: Array, layer: str, mesh: Mesh) -> Array:
    """Marks an array, equal on all devices, as the own one of each that has a kernel of `layer` of its own."""
    spec = parameter_specs(mesh, {layer: {'kernel': x}})[layer]['kernel']
    axes = tuple(axis for axis in mesh.axis_names if axis in (*spec, *batch_axes(mesh)))
    return lax.pcast(x, axes, to='varying')


def copy_to_towers(images: Array, mesh: Mesh) -> Array:
    """Marks images, equal on both towers, as each tower's own copy; moves nothing.

    Nobody wants the gradient of an image. Unmarked, a layer that writes its own gradient would have to sum it over the
    towers, which share the image.
    """
    return lax.pcast(images, TOWER, to='varying') if TOWER in mesh.axis_names else images


def mean_over_batch(x: Array, mesh: Mesh) -> Array:
    """Averages over devices with other images; inside the differentiated loss, so that gradients come out averaged."""
    return lax.pmean(x, batch_axes(mesh))


def clip_by_norm(grads: Any, norm: float, mesh: Mesh) -> tuple[Any, Array]:
    """Scales gradients, equal on all replicas, to a norm over both towers of at most `norm`; returns what it was too.

    Only where clipping is asked for: AlexNet was trained without. Its norm is the one number that no tower knows alone;
    it is the fifth thing that they tell each other, four bytes.
    """
    _, second = mesh.axis_names
    own: list[Array] = []
    shared: list[Array] = []  # all have them, so they count once
    for grad, spec in zip(jax.tree.leaves(grads), jax.tree.leaves(parameter_specs(mesh, grads)), strict=True):
        (own if second in spec else shared).append(jnp.sum(jnp.square(grad)))
    with jax.named_scope(SCOPE + NORMS[0]):
        found = jnp.sqrt(lax.psum(sum(own), second) + sum(shared))
    scale = jnp.minimum(1.0, norm / found)
    return jax.tree.map(lambda grad: grad * scale.astype(grad.dtype), grads), found


def norms_over_towers(tree: Any, mesh: Mesh) -> Any:
    """Computes the norm of each whole array of a tree by layer, of which a device has its share; inside shard_map.

    Only where the update rule is LARS. No tower knows the norm of an array that both share: as many numbers as there
    are such arrays, in one message.
    """
    _, second = mesh.axis_names
    leaves, structure = jax.tree.flatten(tree)
    specs = jax.tree.leaves(parameter_specs(mesh, tree))
    squares = [jnp.sum(jnp.square(leaf)) for leaf in leaves]
    split = [index for index, spec in enumerate(specs) if second in spec]
    if split:
        with jax.named_scope(SCOPE + NORMS[1]):
            summed = lax.psum(jnp.stack([squares[index] for index in split]), second)
        for index, square in zip(split, summed, strict=True):
            squares[index] = square
    return jax.tree.unflatten(structure, [jnp.sqrt(square) for square in squares])


def norm_over_towers(x: Array, spec: Any, mesh: Mesh) -> Array:
    """Computes the norm of a whole array, of which each device has the part that `spec` says; inside shard_map.

    Of its entries over the sum of the devices' largest, because squares of gradients that vanish are 0 in float32.
    """
    _, second = mesh.axis_names
    largest = jnp.abs(x).max()
    if second in spec:
        largest = lax.psum(largest, second)
    scale = jnp.where(largest > 0, largest, 1)
    square = jnp.sum(jnp.square(x / scale))
    return scale * jnp.sqrt(lax.psum(square, second) if second in spec else square)


def sum_over_images(x: Array, mesh: Mesh, *, dense: bool) -> Array:
    """Sums over devices that have other images of the same units; `dense`: of fc6 or fc7."""
    return lax.psum(x, (DATA,) if dense else batch_axes(mesh))


def mean_over_units(x: Array, mesh: Mesh, *, dense: bool) -> Array:
    """Averages over devices that have other units of a layer, once nothing differs by image; `dense` as above."""
    _, second = mesh.axis_names
    return lax.pmean(x, second) if dense or second == TOWER else x


def mean_over_devices(x: Array, mesh: Mesh) -> Array:
    """Averages over all devices: each has as many values as another, of other images or of other units."""
    return lax.pmean(x, mesh.axis_names)


def hidden_units(rows: int, mesh: Mesh, *, part: int = 0, parts: int = 1) -> tuple[Array, Array, Array | int, int]:
    """Finds which units of fc6 and fc7 this device, of `rows` images, computes; to be called inside shard_map.

    Of the images only those of one part of `parts`, neighbours, are meant.

    Returns:
      Rows of the global batch, int32 (r,), the towers that it holds, int32 (t,), and which part of how many parts of
      those towers.
    """
    _, second = mesh.axis_names
    place, devices = lax.axis_index(second), mesh.shape[second]
    sharers = devices if second == MODEL else 1  # fc6 and fc7 see the images of all
    everyone = lax.axis_index(DATA) * (sharers * rows) + jnp.arange(sharers * rows)
    ids = everyone.reshape(sharers, parts, -1)[:, part].ravel()
    if devices == 1:
        return ids, jnp.arange(2), 0, 1
    tower, share = jnp.divmod(place, devices // 2)
    return ids, tower[None], share, devices // 2
