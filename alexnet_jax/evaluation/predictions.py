"""What a network says of every image of a split: the probabilities from which all measures are computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from alexnet_jax.data.dataset import DataSource
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluator import Evaluator
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.mesh import TOWER, batch_axes, parameter_specs, place, replicate


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Each image of a split exactly once, in the order of its records.

    Attributes:
      probabilities: float32 (n, classes), averaged over the protocol's views.
      labels: int32 (n,), the right classes.
    """

    probabilities: np.ndarray
    labels: np.ndarray


class Predictor:
    """A network on a mesh, ready for the images of one split."""

    def __init__(
        self, network: Network, mesh: Mesh, records: DataSource, *, batch_size: int, dtype: DTypeLike | None = None
    ) -> None:
        """Arguments as of `predict_split`."""
        check_mesh(network, mesh, batch_size=batch_size)
        outputs = len(network.classes)
        self._evaluator = Evaluator(
            network.variant, mesh, records, num_classes=outputs, batch_size=batch_size, dtype=dtype
        )
        self._params = place(mesh, network.params, parameter_specs(mesh, network.params))
        self._mean_image = replicate(mesh, network.mean_image)

    def predict(self, protocol: str, *, progress: Callable[[int], None] | None = None) -> Predictions:
        """Under 'centre' or 'ten_view'; `progress` is told how many images are done."""
        found = self._evaluator.probabilities(self._params, self._mean_image, protocol=protocol, progress=progress)
        return Predictions(*found)


def predict_split(
    network: Network,
    mesh: Mesh,
    records: DataSource,
    *,
    protocol: str,
    batch_size: int,
    dtype: DTypeLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """What `network` says of every image of `records`; on several processes all must call it, and each gets all rows.

    Args:
      network: with its weights, on the host.
      mesh: of sharding.mesh.make_mesh.
      records: of data.dataset.Dataset.records.
      protocol: 'centre' or 'ten_view' (evaluation.views).
      batch_size: images at once, of all devices together.
      dtype: of activations and products, such as bfloat16; None: float32.
      progress: told how many images are done.

    Raises:
      InputError: the network or the batch cannot be shared by the mesh's devices, or a record is damaged.
    """
    return Predictor(network, mesh, records, batch_size=batch_size, dtype=dtype).predict(protocol, progress=progress)


def check_mesh(network: Network, mesh: Mesh, *, batch_size: int) -> None:
    """That the devices of `mesh` can share the network and a batch; `InputError` where they cannot."""
    if mesh.shape.get(TOWER, 1) > 1 and not network.variant.divisible:
        raise InputError(
            f'{network.source} is a {network.variant.name}, which has no two towers that could live apart: use '
            f'--mesh={mesh.devices.shape[0]},1'
        )
    parts = int(np.prod([mesh.shape[axis] for axis in batch_axes(mesh)]))
    if batch_size < 1 or batch_size % parts:
        raise InputError(f'a batch of {batch_size} does not divide over {parts} devices: use a multiple of {parts}')
