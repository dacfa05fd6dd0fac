"""Where a run begins, and where it goes back to."""

from __future__ import annotations

from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.source import Dataset
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.logbook import to_stderr
from alexnet_jax.training.recipe import optimizer_of, variant_of
from alexnet_jax.training.state import TrainState, abstract_state, create_state


def open_state(
    config: ml_collections.ConfigDict, dataset: Dataset, mesh: Mesh, checkpoints: Checkpoints
) -> tuple[TrainState, int, bool]:
    """The newest whole checkpoint's state, or a fresh one; the order of its data; whether its step was tested.

    Raises:
      InputError: there are checkpoints, and all are damaged; they are set aside now.
    """
    variant, optimizer, num_classes = variant_of(config), optimizer_of(config), len(dataset.classes)
    like = abstract_state(variant, optimizer, mesh, num_classes=num_classes)
    say: Callable[[str], None] = (lambda text: None) if jax.process_index() else to_stderr
    if found := checkpoints.restore_newest(like, mesh, say=say):
        return found[0], found[1].data_order, found[1].tested
    mean_image = np.asarray(centre_crop(dataset.mean_image, variant.input_size))
    state = create_state(variant, optimizer, mesh, num_classes=num_classes, mean_image=mean_image, seed=config.seed)
    return state, 0, True
