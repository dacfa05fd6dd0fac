"""From a config to its training batches, on the host and on the mesh."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import ml_collections
from jax.sharding import Mesh

from alexnet_jax import InputError
from alexnet_jax.data.augment import fixed_places, lighting_basis, offsets_of
from alexnet_jax.data.pipeline import HostBatch, TrainingBatches, window_of
from alexnet_jax.data.source import Dataset
from alexnet_jax.parallel.mesh import local_rows, place_batch
from alexnet_jax.parallel.processes import gather
from alexnet_jax.training.digests import digest
from alexnet_jax.training.recipe import lit_steps_of, variant_of
from alexnet_jax.training.step import Batch
from alexnet_jax.training.watch import check_finite


def placed_batches(
    config: ml_collections.ConfigDict, dataset: Dataset, mesh: Mesh, *, start: int, data_order: int = 0
) -> Iterator[Batch]:
    """The batches after `start` updates, on the mesh; the transfer of one runs while the step before it computes.

    Raises:
      InputError: another process made another batch of the same rows.
      Diverged: a batch holds a number that is none.
    """
    rows = local_rows(mesh, config.batch_size)
    batches = batches_of(config, dataset, rows=rows, data_order=data_order).read_from(start)
    for step, batch in enumerate(batches, start=start + 1):
        if step == start + 1:
            _prove_same(batch, rows)
        check_finite(step, float(batch.lighting.sum()), 'lighting')
        arrays: Any = (batch.images, batch.labels, batch.lighting)
        yield place_batch(mesh, Batch(*arrays), batch_size=config.batch_size)


def batches_of(
    config: ml_collections.ConfigDict, dataset: Dataset, *, rows: range | None = None, data_order: int = 0
) -> TrainingBatches:
    """The training batches of a config, host side.

    Args:
      config: the run's.
      dataset: the run's.
      rows: of every global batch, those to make; None: all.
      data_order: how often the run was rolled back: each time its images come in another order.
    """
    variant = variant_of(config)
    records = dataset.records('train')
    offsets = offsets_of(variant.input_size, record=variant.record_size)
    basis = lighting_basis(dataset.rgb_covariance, scale=variant.lighting.scale, strength=variant.lighting.strength)
    return TrainingBatches(
        records,
        config.batch_size,
        config.seed + (data_order << 31),  # seeds of configs are smaller
        basis,
        window_of(records),
        crop_size=variant.input_size,
        record_size=variant.record_size,
        rows=rows,
        images_per_crop=variant.images_per_crop,
        places=None if variant.crops is None else fixed_places(variant.crops, seed=config.seed, offsets=offsets),
        flips=variant.flips,
        lit_steps=lit_steps_of(config, examples=dataset.examples('train')),
    )


def _prove_same(batch: HostBatch, rows: range) -> None:
    """Processes that need the same rows of a batch, because a replica's towers are theirs, must have made the same."""
    own = {'rows': [rows.start, rows.stop], 'digest': digest(batch.images) + digest(batch.labels)}
    words = [json.loads(word) for word in gather('batch', json.dumps(own))]
    for index, word in enumerate(words):
        if word['rows'] == own['rows'] and word != own:
            raise InputError(f'process {index} made another batch of the same rows: is its --config.data_dir the same?')
