"""A trained network as one object: what testing it, looking inside and handing it on need."""

import dataclasses
from typing import Any

import numpy as np

from alexnet_jax.model.ablations import ablate
from alexnet_jax.model.spec import Variant
from alexnet_jax.model.zoo import NETWORKS


@dataclasses.dataclass(frozen=True)
class NetworkName:
    """Which network: a variant's name, its width and the parts that it is without (model.ablations)."""

    variant: str
    width: float = 1.0
    without: tuple[str, ...] = ()

    def build(self) -> Variant:
        """The network as data."""
        return ablate(NETWORKS[self.variant], self.without).scaled(self.width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network with its weights and with how it wants its images.

    Attributes:
      name: which network.
      params: {layer: {'kernel', 'bias'}}, float32 NumPy arrays as in model.alexnet.
      mean_image: float32 (input_size, input_size, 3), RGB, 0..255, subtracted from every crop.
      classes: names, in the order of the outputs.
      source: where it came from, for people: 'runs/NAME, step 625'.
      about: what else is known, such as {'step', 'params_sha256', 'config'} of a run; {} of weights from elsewhere.
    """

    name: NetworkName
    params: dict[str, dict[str, np.ndarray]]
    mean_image: np.ndarray
    classes: tuple[str, ...]
    source: str
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def variant(self) -> Variant:
        """The network as data, at its width."""
        return self.name.build()
