"""The package as a library: `load` opens a trained network; arrays go through it under jit, grad and vmap."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.data.augment import centre_crop, cut_mean
from alexnet_jax.data.photo_files import open_photos
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import compute_stage, find_stage
from alexnet_jax.evaluation.open_networks import NetworkArgs, get_dtype
from alexnet_jax.evaluation.predict_photos import MAX_BATCH, rank_classes
from alexnet_jax.evaluation.views import PROTOCOLS, cut_view, get_views
from alexnet_jax.model.alexnet import AlexNet, get_stage_shapes, list_stages
from alexnet_jax.model.network import Network
from alexnet_jax.weights.pretrained import IMAGENET_TRUNK

Path = str | os.PathLike[str]
Images = Array | np.ndarray


def load(path: Path, *, step: int | None = None) -> TrainedNetwork:
    """Loads a trained network onto JAX's default device, whatever the mesh of its training was.

    Args:
      path: a run folder, such as 'runs/NAME', or a file of weights: what `alexnet convert` writes as safetensors or
        ONNX, and the foreign files that `weights.open_weights.open_weights` knows; or 'imagenet_trunk'.
      step: which checkpoint of a run folder; None: the newest.

    Raises:
      InputError: `path` holds no network or no such checkpoint, is damaged, or is a file and `step` is given.
    """
    path = pathlib.Path(path)
    if not path.exists() and str(path) != IMAGENET_TRUNK:
        raise InputError(f'{path} does not exist: give a run folder, such as runs/NAME, or a file of weights')
    if not path.is_dir():
        return TrainedNetwork(NetworkArgs(weights=(str(path),), step=step).open_one())
    return TrainedNetwork(NetworkArgs(workdir=(str(path),), step=step).open_one())


class TrainedNetwork:
    """A trained network on one device.

    `logits` and `features` are pure JAX functions of their images. They take one image (side, side, 3) or a batch
    (n, side, side, 3), RGB, uint8 or any float, 0 to 255 in both cases, as NumPy or JAX arrays. `side` is the
    network's input size (224 of the paper's), or that of its records (256), whose centre crop is then read.

    Attributes:
      network: weights, mean image, classes and origin, as `load` has read them, on the host.
    """

    def __init__(self, network: Network) -> None:
        """Puts the weights of `network` on JAX's default device."""
        self.network = network
        self._variant = network.variant
        self._params = jax.tree.map(jnp.asarray, network.params)
        self._mean_image = jnp.asarray(network.mean_image)
        # The plain operations, not those for XLA:CPU: these have reverse-mode derivatives alone.
        model = AlexNet(self._variant, len(network.classes), dtype=get_dtype(network))
        self._compute_stage = jax.jit(functools.partial(compute_stage, model), static_argnames='stage')

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self._variant.name}, {len(self.classes)} classes, from {self.network.source}>'

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.network.classes

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The stages that `features` knows, in order, each with the shape of one image's features."""
        return get_stage_shapes(self._variant, num_classes=len(self.classes))

    def logits(self, images: Images) -> Array:
        """Computes the logits, before softmax, without dropout: float32 (classes,), of a batch (n, classes).

        Raises:
          InputError: the images have another shape or dtype than the class takes.
        """
        return self.features(images, list_stages(self._variant)[-1])

    def features(self, images: Images, layer: str) -> Array:
        """Computes what a layer makes of images, without dropout, as `alexnet features` writes it.

        Args:
          images: as of `logits`.
          layer: such as 'conv5' or 'fc7', whose last stage is meant, or a stage of `layers`, such as 'conv1/norm'.

        Returns:
          float32 (height, width, channels) of a convolution, both towers, or (units,); of a batch with n in front.

        Raises:
          InputError: the images have another shape or dtype, or the network has no such layer.
        """
        try:
            stage = find_stage(self._variant, layer)
        except InputError as error:
            names = ', '.join(dict.fromkeys(stage.split('/')[0] for stage in list_stages(self._variant)))
            raise InputError(
                f'the network {self._variant.name} has no layer {layer!r}: give one of {names}, or a stage of .layers'
            ) from error
        batch = self._make_batch(images)
        (view,) = get_views('centre', self._variant.input_size, record=batch.shape[1])
        rows = self._compute_rows(batch, view, stage)
        return rows if len(images.shape) == 4 else rows[0]

    def predict(
        self, images: Images | Path | Sequence[Path], *, protocol: str = 'ten_view'
    ) -> list[list[tuple[str, float]]]:
        """Names the most probable classes of photographs, as `alexnet predict` does.

        Args:
          images: the path of an image file, or several; or an array as of `logits`. A file's shorter side is resized
            to the record size and its centre square is read, as by the command.
          protocol: 'ten_view' averages the probabilities of ten views, 'centre' takes the centre crop alone. Arrays of
            the input size have only the centre.

        Returns:
          For each image, also where there is only one, its five most probable classes (all, where there are fewer) as
          (class name, probability 0..1), the most probable first.

        Raises:
          InputError: no image or protocol, not a photograph, another shape or dtype, or probabilities not finite.
        """
        if protocol not in PROTOCOLS:
            raise InputError(f'there is no protocol {protocol!r}: give one of {", ".join(PROTOCOLS)}')
        if isinstance(images, str | os.PathLike):
            images = [images]
        if isinstance(images, Sequence):
            names = [os.fspath(path) for path in images]
            batches = self._iter_photos(names)
        else:
            batch = self._make_batch(images)
            names = [f'image {index}' for index in range(len(batch))]
            batches = (batch[start : start + MAX_BATCH] for start in range(0, len(batch), MAX_BATCH))
        rows = (row for part in batches for row in self._compute_probabilities(part, protocol))
        ranked = [rank_classes(self.network, row, name=name) for row, name in zip(rows, names, strict=True)]
        return [[(one['class'], one['probability']) for one in best] for best in ranked]

    def _iter_photos(self, names: list[str]) -> Iterator[Array]:
        """Yields batches (n, side, side, 3) of the centre squares of files."""
        if not names:
            raise InputError('no image is named: give one path or more')
        if folders := [name for name in names if os.path.isdir(name)]:
            raise InputError(f'{folders[0]} is a folder: give the paths of its images')
        photos = open_photos(names, self.classes, preprocessing=self.network.preprocessing)
        side = self._variant.record_size
        if photos.unusable:
            raise InputError('; '.join(photos.unusable))
        for start in range(0, len(names), MAX_BATCH):
            part = range(len(names))[start : start + MAX_BATCH]
            yield jnp.stack([read_whole_image(photos.records, index, record_size=side) for index in part])

    def _compute_probabilities(self, batch: Array, protocol: str) -> np.ndarray:
        """Averages the softmax over the views of a batch (n, side, side, 3); (n, classes) on the host."""
        size, side, last = self._variant.input_size, batch.shape[1], list_stages(self._variant)[-1]
        if protocol != 'centre' and side != self._variant.record_size:
            record = self._variant.record_size
            raise InputError(
                f"images of {side}x{side} have no ten views: give protocol='centre', or images of {record}x{record}"
            )
        views = get_views(protocol, size, record=side)
        return np.asarray(sum(jax.nn.softmax(self._compute_rows(batch, view, last)) for view in views) / len(views))

    def _compute_rows(self, batch: Array, view: tuple[int, int, bool], stage: str) -> Array:
        self.network.check_trained(stage.split('/')[0])
        size, place = self._variant.input_size, [*map(jnp.int32, view)]
        if batch.shape[1] == self._variant.record_size:
            mean = cut_mean(self._mean_image, jnp.stack(place)[None], size=size)
        else:  # crops, taken to be from the centre
            mean = jnp.asarray(centre_crop(self._mean_image, size))
        crops = cut_view(batch, *place, size=size)
        return self._compute_stage(self._params, crops, mean, stage=stage).astype(jnp.float32)

    def _make_batch(self, images: Any) -> Array:
        """Checks shape and dtype, which are static under jit, and gives one image a batch axis."""
        sizes = dict.fromkeys((self._variant.input_size, self._variant.record_size))
        wanted = ' or '.join(f'({size}, {size}, 3)' for size in sizes)
        shape, dtype = getattr(images, 'shape', None), getattr(images, 'dtype', None)
        if shape is None or dtype is None:
            raise InputError(f'images are a {type(images).__name__}: give a NumPy or JAX array, {wanted} or a batch')
        if len(shape) not in (3, 4) or tuple(shape[-3:]) not in [(size, size, 3) for size in sizes]:
            raise InputError(f'images have the shape {tuple(shape)}: give one of {wanted}, or a batch (n, ...) of them')
        if shape[0] == 0:
            raise InputError(f'images have the shape {tuple(shape)}: a batch has at least one')
        if dtype != jnp.uint8 and not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(f'images are {dtype}: give uint8 or a float dtype, 0 to 255 in both cases')
        batch = jnp.asarray(images)
        return batch if batch.ndim == 4 else batch[None]
