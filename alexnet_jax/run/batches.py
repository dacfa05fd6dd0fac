"""Makes the training batches of a run, on the host and on the mesh."""

import json
from collections.abc import Iterator
from typing import Any

from alexnet_jax.checkpoints.hashes import hash_array
from alexnet_jax.data.augment import choose_offsets, count_offsets, lighting_basis
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.decode import get_crop_decoder
from alexnet_jax.data.pipeline import HostBatch, TrainingBatches
from alexnet_jax.distributed.hosts import allgather_str
from alexnet_jax.errors import InputError
from alexnet_jax.logs.monitors import check_finite
from alexnet_jax.sharding.mesh import local_rows, place_batch
from alexnet_jax.training.build import Run
from alexnet_jax.training.step import Batch


def iter_batches(run: Run, dataset: Dataset, *, start: int, data_order: int = 0) -> Iterator[Batch]:
    """Yields the batches after `start` updates, on the mesh; one is transferred while the step before it computes.

    Raises:
      InputError: another process made another batch of the same rows.
      NonFiniteError: the lighting of a batch is not finite.
    """
    rows = local_rows(run.mesh, run.config.batch_size)
    batches = make_batches(run, dataset, rows=rows, data_order=data_order).read_from(start)
    for step, batch in enumerate(batches, start=start + 1):
        if step == start + 1:
            _check_same_rows(batch, rows)
        check_finite(step, float(batch.lighting.sum()), 'lighting')
        yield place_batch(run.mesh, make_batch(batch), batch_size=run.config.batch_size)


def make_batch(batch: HostBatch) -> Batch:
    """Takes what the step needs of a batch, still on the host."""
    arrays: Any = (batch.images, batch.labels, batch.lighting, batch.places)
    return Batch(*arrays)


def make_batches(run: Run, dataset: Dataset, *, rows: range | None = None, data_order: int = 0) -> TrainingBatches:
    """Makes the training batches of a run, on the host.

    `rows` are those of every global batch to make, None all; `data_order` is how often the run was rolled back: each
    time its images come in another order.
    """
    variant, config = run.variant, run.config
    records = dataset.records('train')
    offsets = None
    if variant.crops is not None:
        offset_count = count_offsets(variant.input_size, record=variant.record_size)
        offsets = choose_offsets(variant.crops, seed=config.seed, offset_count=offset_count)
    basis = lighting_basis(dataset.rgb_covariance, scale=variant.lighting.scale, strength=variant.lighting.strength)
    return TrainingBatches(
        records,
        config.batch_size,
        config.seed + (data_order << 31),  # seeds of configs are smaller
        basis,
        get_crop_decoder(records),
        crop_size=variant.input_size,
        record_size=variant.record_size,
        rows=rows,
        images_per_crop=variant.images_per_crop,
        offsets=offsets,
        flips=variant.flips,
        lighting_steps=run.lighting_steps,
    )


def _check_same_rows(batch: HostBatch, rows: range) -> None:
    """Checks that processes which need the same rows, because a replica's towers are theirs, have made the same."""
    # Not the lighting: the last bit of a product may be the processor's.
    parts = (batch.images, batch.labels, batch.places)
    own = {'rows': [rows.start, rows.stop], 'digest': ''.join(map(hash_array, parts))}
    others = [json.loads(text) for text in allgather_str('batch', json.dumps(own))]
    for index, other in enumerate(others):
        if other['rows'] == own['rows'] and other != own:
            raise InputError(f'process {index} made another batch of the same rows: is its --config.data_dir the same?')
