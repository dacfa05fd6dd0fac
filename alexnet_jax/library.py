"""The package as a library: `load` opens a trained network; arrays go through it under jit, grad and vmap."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.data.augment import centre_crop, cut_mean
from alexnet_jax.data.photo_files import open_photos
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import perceptual
from alexnet_jax.evaluation.features import compute_stages, find_stage
from alexnet_jax.evaluation.open_networks import NetworkArgs, get_dtype
from alexnet_jax.evaluation.predict_photos import MAX_BATCH, rank_classes
from alexnet_jax.evaluation.views import PROTOCOLS, cut_view, get_views, make_batch
from alexnet_jax.model.alexnet import AlexNet, get_stage_shapes, list_stages
from alexnet_jax.model.network import Network
from alexnet_jax.model.ops import DropoutStream
from alexnet_jax.model.spec import TOWERS
from alexnet_jax.weights.convert import convert
from alexnet_jax.weights.layout import check_params
from alexnet_jax.weights.lpips_linear import load_linear_layers
from alexnet_jax.weights.pretrained import IMAGENET_TRUNK

Path = str | os.PathLike[str]
Images = Array | np.ndarray
Params = Mapping[str, Mapping[str, Any]]


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

    `logits`, `features`, `distance` and `apply` are pure JAX functions of their images, and `apply` of its parameters
    too. They take one image (side, side, 3) or a batch (n, side, side, 3), RGB, uint8 or any float, 0 to 255 in both
    cases, as NumPy or JAX arrays. `side` is the network's input size (224 of the paper's), or that of its records
    (256), whose centre crop is then read. An object never changes: `with_classes` and `with_params` give others.

    Attributes:
      network: weights, mean image, classes and origin, as `load` has read them, on the host.
      params: the weights on the device, {layer: {'kernel', 'bias'}}, float32 as in `AlexNet`.
    """

    def __init__(self, network: Network) -> None:
        """Puts the weights of `network` on JAX's default device."""
        self.network = network
        self._variant = network.variant
        self.params = jax.tree.map(jnp.asarray, network.params)
        self._mean_image = jnp.asarray(network.mean_image)
        # The plain operations, not those for XLA:CPU: these have reverse-mode derivatives alone.
        model = AlexNet(self._variant, len(network.classes), dtype=get_dtype(network))

        def compute(stages: tuple[str, ...], params: Any, crops: Array, mean: Array, key: Array | None) -> list[Array]:
            dropout = None if key is None else DropoutStream(key, jnp.arange(len(crops)), jnp.arange(TOWERS))
            found = compute_stages(model, params, crops, mean, dropout)
            return [found[stage].astype(jnp.float32) for stage in stages]

        self._compute_stages = jax.jit(compute, static_argnums=0)
        self._compute_compared = jax.jit(functools.partial(perceptual.compute_compared_stages, model))
        self._linear_layers: dict[str, tuple[np.ndarray, ...]] = {}  # by where they were read

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
        (rows,) = self._compute_centre(self.params, images, (stage,))
        return rows if len(images.shape) == 4 else rows[0]

    def apply(self, params: Params, images: Images, *, dropout: Array | None = None) -> Array:
        """Computes the logits with other parameters: what is differentiated to train them.

        Args:
          params: a tree like `params`, of which parts may be other arrays: `net.params | {'fc8': ...}`.
          images: as of `logits`.
          dropout: a PRNG key: units of fc6 and fc7 are dropped as in training; None: none are.

        Returns:
          float32 (classes,), of a batch (n, classes).

        Raises:
          InputError: the images have another shape or dtype, or the network has layers without weights.
        """
        (rows,) = self._compute_centre(params, images, list_stages(self._variant)[-1:], key=dropout)
        return rows if len(images.shape) == 4 else rows[0]

    def distance(self, a: Images, b: Images, *, weights: Path | None = None) -> Array:
        """Computes how different images look to the convolutions, as LPIPS does (Zhang et al. 2018).

        The features behind the nonlinearity of each convolution, at each place divided by their norm over all
        channels, are subtracted and squared, weighed and summed over channels, averaged over places, and summed over
        convolutions. 0 of equal images.

        Args:
          a: images as of `logits`, or of any other size: all of them is compared, also of records.
          b: as many of the same size, or one on either side, which is compared with each on the other.
          weights: the linear layers that LPIPS learned for torchvision's network: its file weights/v0.1/alex.pth, or
            'lpips' for those of the extra `pretrained`; read once. None: every channel counts 1, as of lpips=False
            in the package lpips.

        Returns:
          float32 (), of one image with one, or (n,).

        Raises:
          InputError: their numbers or sizes differ, they are too small or of a wrong dtype; `weights` are another's.
        """
        linear = None if weights is None else self._load_linear_layers(os.fspath(weights))
        self.network.check_trained(self._variant.convs[-1].name)
        batches = [make_batch(images, self._variant, any_size=True) for images in (a, b)]
        perceptual.check_pairs(*batches)
        found = [self._compute_compared(self.params, batch, self._mean_image) for batch in batches]
        rows = perceptual.compare_stages(*found, linear)
        return rows if 4 in (len(a.shape), len(b.shape)) else rows[0]

    def with_params(self, params: Params) -> TrainedNetwork:
        """Makes the network with other parameters, such as fine-tuned ones.

        Raises:
          InputError: they are not those of this network by name and shape, or not finite; or it has layers without
            weights, which `with_classes` makes.
        """
        self.network.check_trained()
        arrays = jax.tree.map(np.asarray, {layer: dict(leaves) for layer, leaves in params.items()})
        checked = check_params(self.network.name, arrays, source='the tree of parameters')
        if (outputs := checked['fc8']['bias'].size) != len(self.classes):
            raise InputError(f'fc8 has {outputs} outputs for {len(self.classes)} classes: use with_classes first')
        return TrainedNetwork(self.network.replace(params=checked))

    def with_classes(self, classes: Sequence[str], *, seed: int = 0) -> TrainedNetwork:
        """Makes the network for other classes: fc8, and what has no weights, is made anew from noise.

        Args:
          classes: their names, in the order of the labels.
          seed: of the noise, which is the variant's own initial distribution.

        Raises:
          InputError: there are no names, or two are equal.
        """
        return TrainedNetwork(self.network.with_classes(classes, seed=seed))

    def save(self, path: Path) -> None:
        """Writes the network as .safetensors, which `load` and every `--weights` open.

        Raises:
          InputError: layers have no weights, or the file cannot be written.
        """
        convert(self.network, to='safetensors', output=pathlib.Path(path))

    def _load_linear_layers(self, source: str) -> tuple[np.ndarray, ...]:
        if source not in self._linear_layers:
            self._linear_layers[source] = load_linear_layers(source, self._variant)
        return self._linear_layers[source]

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
            batch = make_batch(images, self._variant)
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
        rows = (self._compute_view(self.params, batch, view, (last,))[0] for view in views)
        return np.asarray(sum(map(jax.nn.softmax, rows)) / len(views))

    def _compute_centre(
        self, params: Params, images: Images, stages: tuple[str, ...], *, key: Array | None = None
    ) -> list[Array]:
        """Computes stages of the centre crops of one image or a batch; of one too with a batch axis."""
        batch = make_batch(images, self._variant)
        (view,) = get_views('centre', self._variant.input_size, record=batch.shape[1])
        return self._compute_view(params, batch, view, stages, key=key)

    def _compute_view(
        self,
        params: Params,
        batch: Array,
        view: tuple[int, int, bool],
        stages: tuple[str, ...],
        *,
        key: Array | None = None,
    ) -> list[Array]:
        self.network.check_trained(stages[-1].split('/')[0])
        size, place = self._variant.input_size, [*map(jnp.int32, view)]
        if batch.shape[1] == self._variant.record_size:
            mean = cut_mean(self._mean_image, jnp.stack(place)[None], size=size)
        else:  # crops, taken to be from the centre
            mean = jnp.asarray(centre_crop(self._mean_image, size))
        crops = cut_view(batch, *place, size=size)
        return self._compute_stages(stages, params, crops, mean, key)
