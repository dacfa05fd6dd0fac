"""Tests parameters under the centre and ten-view protocols: every image of a split, exactly once.

The whole records go to the devices; the views are cut there. One compiled program serves both protocols: it
takes the view as an argument and is called once for each.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from alexnet_jax.data.augment import cut_mean, normalise
from alexnet_jax.data.dataset import Source
from alexnet_jax.data.decode import get_crop_decoder
from alexnet_jax.data.pipeline import EvaluationBatches
from alexnet_jax.distributed.hosts import fetch, sync_hosts
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.evaluation.views import cut_view, get_views
from alexnet_jax.model.spec import Variant
from alexnet_jax.sharding.backend import compiler_options
from alexnet_jax.sharding.mesh import REPLICATED, batch_spec, local_rows, parameter_specs, place_batch, replicate
from alexnet_jax.training.step import make_model, score_top_k


@dataclasses.dataclass(frozen=True)
class Result:
    """The errors of a network under one protocol.

    Attributes:
      examples: images tested, each once.
      loss: mean -log of the averaged probability of the right class, in nats.
      top1_error, top5_error: fraction of images, 0..1, whose class is not the most probable, not among the five most
        probable (of fewer than five classes: not among all, so 0). Of n equally probable ones an image counts 1/n
        (`score_top_k`).
    """

    examples: int
    loss: float
    top1_error: float
    top5_error: float


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The probabilities of every image of a split, each image once, in the order of its records.

    Attributes:
      probabilities: float (n, classes), averaged over the protocol's views.
      labels: int32 (n,), the right classes.
      right: bool (n, classes), where several classes of an image may be right: which; None: those of `labels`.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    right: np.ndarray | None = None


class Evaluator:
    """Tests parameters on one split.

    Attributes:
      examples: images of the split; every test asserts that it counted just as many.
    """

    def __init__(
        self,
        variant: Variant,
        mesh: Mesh,
        records: Source,
        *,
        num_classes: int,
        batch_size: int,
        dtype: DTypeLike | None = None,
        among: Sequence[int] | None = None,
    ) -> None:
        """`dtype` is the model's (model.alexnet.AlexNet); probabilities are in that of the mean image.

        `among`, of the `num_classes` outputs, are those that compete, class i of `records` at the i-th; None: all.
        """
        self.examples = len(records)
        self._mesh = mesh
        self._batch_size, rows = batch_size, local_rows(mesh, batch_size)
        self._batches = EvaluationBatches(
            records, batch_size, get_crop_decoder(records), record_size=variant.record_size, rows=rows
        )
        self._num_classes, self._variant = num_classes if among is None else len(among), variant
        self._add_view = _make_add_view(variant, mesh, num_classes=num_classes, dtype=dtype, among=among)
        # On every device, so that every process can read it.
        self._count = jax.jit(_count, out_shardings=NamedSharding(mesh, REPLICATED))

    def with_records(self, records: Source, *, chosen: Sequence[int] | None = None) -> Self:
        """Makes the evaluator of other records of the same size, or of those `chosen`; the program is the same."""
        other, decode_crop = copy.copy(self), get_crop_decoder(records)
        other.examples = len(records) if chosen is None else len(chosen)
        other._batches = dataclasses.replace(self._batches, source=records, decode_crop=decode_crop, chosen=chosen)
        return other

    def __call__(
        self, params: Any, mean_image: Array, *, protocol: str, progress: Callable[[int], None] | None = None
    ) -> Result:
        """Computes the errors of `params` under 'centre' or 'ten_view'.

        `params` and `mean_image` are on the mesh already: what would be moved unasked is refused. `progress` is told
        how many images are done.
        """
        totals = np.zeros(4)
        with jax.transfer_guard('disallow'):
            for batch in self._iter_batches(params, mean_image, protocol, progress):
                totals += jax.device_get(self._count(*batch))
        count, loss, top1, top5 = totals
        assert count == self.examples, f'evaluated {count} images of {self.examples}'
        return Result(self.examples, float(loss / count), float(top1 / count), float(top5 / count))

    def predict(
        self, params: Any, mean_image: Array, *, protocol: str, progress: Callable[[int], None] | None = None
    ) -> Predictions:
        """Computes the probabilities of every image; arguments as of `__call__`.

        All processes must call it, and each gets all rows.
        """
        probabilities, labels = [], []
        with jax.transfer_guard('disallow'):
            for batch in self._iter_batches(params, mean_image, protocol, progress):
                mean_probability, label, valid = fetch(batch)
                probabilities.append(mean_probability[valid])
                labels.append(label[valid])
        found = Predictions(np.concatenate(probabilities), np.concatenate(labels))
        assert len(found.labels) == self.examples, f'predicted {len(found.labels)} images of {self.examples}'
        return found

    def _iter_batches(
        self, params: Any, mean_image: Array, protocol: str, progress: Callable[[int], None] | None
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Yields every batch's averaged probabilities (b, classes), labels (b,) and valid (b,), on the mesh.

        The caller must wait for each before it takes the next, as each view takes the sum so far: on virtual CPU
        devices several programs in flight at once, each at one of its exchanges, would take all threads and wait for
        one another for ever.
        """
        views = get_views(protocol, self._variant.input_size, record=self._variant.record_size)
        weight = np.asarray(1 / len(views), mean_image.dtype)
        placed = [replicate(self._mesh, (weight, *map(np.int32, view))) for view in views]
        for index, batch in enumerate(self._batches.read(), start=1):
            PROGRESS.advance()
            if index == 1:
                sync_hosts('test')  # as after compiling a training step: the first message may be waited for 30 s only
            none_yet = np.zeros((len(batch.labels), self._num_classes), mean_image.dtype)
            on_host = (batch.images, batch.labels, batch.valid, none_yet)
            images, labels, valid, mean_probability = place_batch(self._mesh, on_host, batch_size=self._batch_size)
            for view in placed:
                mean_probability = self._add_view(mean_probability, params, images, mean_image, *view)
            yield mean_probability, labels, valid
            if progress:
                progress(min(index * self._batch_size, self.examples))


def _make_add_view(
    variant: Variant, mesh: Mesh, *, num_classes: int, dtype: DTypeLike | None, among: Sequence[int] | None
) -> Callable[..., Array]:
    """(total, params, images (b, h, w, 3), mean_image, weight, *view) -> total + weight * softmax, jitted."""
    model = make_model(mesh, variant, num_classes=num_classes, dtype=dtype)

    def device_add_view(
        total: Array, params: Any, images: Array, mean_image: Array, weight: Array, *view: Array
    ) -> Array:
        crops = cut_view(images, *view, size=variant.input_size)
        mean = cut_mean(mean_image, jnp.stack(view)[None], size=variant.input_size)
        logits = model.apply({'params': params}, normalise(crops, mean, std=variant.pixel_std))
        if among is not None:
            logits = logits[:, np.asarray(among)]
        return total + weight.astype(total.dtype) * jax.nn.softmax(logits)

    def add_view(total: Array, params: Any, images: Array, *rest: Array) -> Array:
        rows = batch_spec(mesh)
        specs = (rows, parameter_specs(mesh, params), rows, *[REPLICATED] * len(rest))
        sharded = jax.shard_map(device_add_view, mesh=mesh, in_specs=specs, out_specs=rows)
        return sharded(total, params, images, *rest)

    return jax.jit(add_view, compiler_options=compiler_options(mesh))


def _count(probabilities: Array, labels: Array, valid: Array) -> Array:
    """(4,): valid images, sum of their losses, top-1 errors, top-5 errors."""
    right = jnp.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    top1, top5 = (1 - score_top_k(probabilities, labels, right, k) for k in (1, 5))
    loss = -jnp.log(jnp.maximum(right, jnp.finfo(right.dtype).tiny))
    rows = jnp.stack([jnp.ones_like(loss), loss, top1, top5])
    return jnp.where(valid, rows, 0).sum(axis=1)
