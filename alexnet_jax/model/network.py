"""A trained network as one object: what testing it, looking inside and handing it on need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.model.ablations import ablate, activate
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.cifar10 import RENAMED
from alexnet_jax.model.spec import Variant
from alexnet_jax.model.zoo import NETWORKS

CHANGED = ', changed'  # the origin of weights that are not any more what was read there


def rename_earlier(variant: str) -> str:
    """Returns today's name of the network that files and run folders without a `mean_at` call `variant`."""
    return RENAMED.get(variant, variant)


@dataclasses.dataclass(frozen=True)
class NetworkName:
    """Which network: a variant's name, its width, the parts that it is without, its units (model.ablations)."""

    variant: str
    width: float = 1.0
    without: tuple[str, ...] = ()
    activation: str = ''  # of ACTIVATIONS; '': the variant's own

    def build(self) -> Variant:
        """The network as data."""
        return activate(ablate(NETWORKS[self.variant], self.without), self.activation).scaled(self.width)

    def takes_mean(self, mean_image: np.ndarray) -> bool:
        """Tells whether `mean_image` is float32 and as large as the network's crops or records."""
        variant = self.build()
        sizes = (variant.input_size, variant.record_size)
        return mean_image.dtype == np.float32 and mean_image.shape in [(size, size, 3) for size in sizes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network with its weights and with how it wants its images.

    Attributes:
      name: which network.
      params: {layer: {'kernel', 'bias'}}, float32 NumPy arrays as in model.alexnet.
      mean_image: float32 (input_size, input_size, 3), RGB, 0..255, subtracted from every crop; or (record_size,
        record_size, 3), of which each crop has the part behind it (data.augment.cut_mean).
      classes: names, in the order of the outputs.
      preprocessing: what the images that it was trained on were made squares by (data/preprocessing.py).
      source: where it came from, for people: 'runs/NAME, step 625'.
      about: what else is known, such as {'step', 'params_sha256', 'config'} of a run; {} of weights from elsewhere.
      untrained: the layers whose weights are missing: zeros stand in their place, and nothing is computed with them.
    """

    name: NetworkName
    params: dict[str, dict[str, np.ndarray]]
    mean_image: np.ndarray
    classes: tuple[str, ...]
    source: str
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: str = 'paper'
    untrained: tuple[str, ...] = ()

    @property
    def variant(self) -> Variant:
        """The network as data, at its width."""
        return self.name.build()

    def with_centre_mean(self) -> Network:
        """The network for centre crops alone: with the centre of its mean image, as large as a crop."""
        edge = (len(self.mean_image) - self.variant.input_size) // 2
        centre = slice(edge, edge + self.variant.input_size)
        return dataclasses.replace(self, mean_image=np.ascontiguousarray(self.mean_image[centre, centre]))

    def replace(self, **values: Any) -> Network:
        """The network with other values: of what is known of a run only its config holds on, not its step and hash."""
        about = {key: value for key, value in self.about.items() if key == 'config'}
        return dataclasses.replace(self, about=about, source=self.source.removesuffix(CHANGED) + CHANGED, **values)

    def with_classes(self, classes: Sequence[str], *, seed: int = 0) -> Network:
        """The network for other classes: its classifier, and what is untrained, made anew from the variant's noise.

        `InputError` where `classes` are no names, or two are equal.
        """
        names = tuple(classes)
        texts = not isinstance(classes, str) and all(isinstance(name, str) for name in names)
        if not texts or not names or len({*names}) != len(names):
            raise InputError(f'classes are {classes!r}: give a list of names, each once')
        fresh = jax.device_get(init_parameters(self.variant, jax.random.key(seed), num_classes=len(names)))
        anew = {layer: fresh[layer] for layer in (*self.untrained, self.variant.dense[-1].name)}
        return self.replace(params=self.params | anew, classes=tuple(map(str, names)), untrained=())

    def check_trained(self, layer: str | None = None) -> None:
        """Checks that all layers up to `layer`, None: all, have weights; `InputError` where one has not."""
        names = [one.name for one in self.variant.layers]
        needed = names if layer is None else names[: names.index(layer) + 1]
        if missing := [name for name in needed if name in self.untrained]:
            last = next(name for name in reversed(names) if name not in self.untrained)
            raise InputError(
                f'{self.source} has no {missing[0]}: its layers up to {last} give features, and a classifier is '
                f'trained on them with --config.init_from={self.source}'
            )
