"""Some real training steps, looked into: losses, what layers give, gradients, updates, who is dropped."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from alexnet_jax.data.augment import normalise
from alexnet_jax.data.pipeline import HostBatch
from alexnet_jax.diagnosis.dropout import DropoutLook, look_at_masks
from alexnet_jax.diagnosis.subject import Subject
from alexnet_jax.diagnosis.watching import LayerLook, Watch
from alexnet_jax.parallel.exchange import copy_to_towers
from alexnet_jax.parallel.mesh import REPLICATED, batch_spec, parameter_specs, place_batch, replicate
from alexnet_jax.training.schedule import layer_factors
from alexnet_jax.training.step import Batch, compiler_options, make_gradients, model_on, rates_at

# Images that are passed through the network as in testing, before the steps and after them. Of fewer a unit that fires
# for one image in twenty would often look dead.
LOOKED_AT = 128
MOST_LOOKED_AT = 32  # batches of them


@dataclasses.dataclass(frozen=True)
class InputLook:
    """What conv1 reads in training: normalised pixels, over all steps.

    Attributes:
      mean: of the three channels, (3,), in 0..255 units: times the variant's `pixel_std`.
      subtracted: how far the three channels' means are below those of the pixels in the same images, (3,): about the
        mean image, also where a few images are darker than most.
      spread: the standard deviation of all of it, each channel about its own mean, in the same units.
      lowest, highest: of all of it, as conv1 reads it.
    """

    mean: np.ndarray
    subtracted: np.ndarray
    spread: float
    lowest: float
    highest: float


@dataclasses.dataclass(frozen=True)
class LayerMoves:
    """A layer's kernel in training, each the median over the steps.

    Attributes:
      gradient: Euclidean norm of its gradient.
      weight: of the kernel itself.
      ratio: norm of the update, as it was applied, divided by that of the kernel before it.
    """

    gradient: float
    weight: float
    ratio: float


@dataclasses.dataclass(frozen=True)
class NetworkLook:
    """What some training steps showed.

    Attributes:
      start: updates made before the first.
      images: how many `before` and `after` saw.
      losses, errors, rates: of each step, before its update; a loss that is no number is the last.
      inputs: what conv1 read.
      before, after: {layer: LayerLook} as in testing (nothing dropped), before the first step and after the last.
      moves: {layer: LayerMoves}.
      held: layers that training does not move any more (variants.Slowed): those of `moves` whose ratio is 0 on purpose.
      dropout: who was dropped; None where the variant drops nobody, or inputs, which cannot be seen from here.
    """

    start: int
    images: int
    losses: list[float]
    errors: list[float]
    rates: list[float]
    inputs: InputLook
    before: dict[str, LayerLook]
    after: dict[str, LayerLook]
    moves: dict[str, LayerMoves]
    held: tuple[str, ...]
    dropout: DropoutLook | None


class Instruments:
    """The compiled programs of a diagnosis, which fit every subject of one network, mesh and update rule."""

    def __init__(self, subject: Subject) -> None:
        """Traces nothing yet: the first subject that is looked at does."""
        self.watch = Watch(subject.variant)
        model = model_on(subject.mesh, subject.variant, num_classes=subject.classes, dtype=subject.dtype)
        watched = self.watch.watched(model)
        self.test, self.step = _make_test(subject, watched), _make_step(subject, watched)

    def look(self, state: Any, batches: list[Batch]) -> dict[str, LayerLook]:
        """What the layers give for `batches`, as in testing."""
        for batch in batches:
            jax.block_until_ready(self.test(state.params, batch, state.mean_image))
        return self.watch.looks(self.watch.settle())


def train_and_look(
    subject: Subject, *, steps: int, say: Callable[[str], None], instruments: Instruments | None = None
) -> NetworkLook:
    """Makes `steps` training steps from where `subject` stands, fewer where a loss is no number; uses up its state."""
    instruments = instruments or Instruments(subject)
    start = int(subject.state.step)
    start = start if start >= 0 else -start - 1  # training.state.frozen
    state = dataclasses.replace(subject.state, step=replicate(subject.mesh, np.int32(start)))
    size = subject.config.batch_size
    looked_at = min(MOST_LOOKED_AT, math.ceil(LOOKED_AT / size))
    batches = iter(subject.batches(start))
    first = list(itertools.islice(batches, looked_at))  # the others are read as they are wanted: all may be many GB
    placed = [_placed(subject, batch) for batch in first]
    say('compiling what looks into the network')
    before = instruments.look(state, placed)
    rows: list[dict[str, Any]] = []
    inputs: list[Any] = []
    masks: list[dict[str, np.ndarray]] = []
    pixels: list[np.ndarray] = []  # the mean of each batch, (3,)
    held: tuple[str, ...] = ()
    for number, batch in enumerate(itertools.islice(itertools.chain(first, batches), steps), start=1):
        key = jax.random.fold_in(jax.random.key(subject.config.seed), state.step)
        rates = rates_at(state.step, state.plateau, schedule=subject.schedule, variant=subject.variant)
        factors = layer_factors(subject.slowed, state.step)
        held = tuple(layer for layer, factor in factors.items() if factor == 0)
        state, found = instruments.step(state, _placed(subject, batch), key, rates, factors)
        rows.append(jax.device_get(found) | {'rate': float(rates['learning_rate'])})
        pixels.append(batch.images.mean((0, 1, 2), dtype=np.float64))
        heard = instruments.watch.settle()
        inputs += heard['input']
        masks.append({name.split()[1]: words[0][0] for name, words in heard.items() if name.startswith('masks ')})
        say(f'training step {number} of {steps}: loss {rows[-1]["loss"]:.3f}')
        if not math.isfinite(rows[-1]['loss']):
            break
    return NetworkLook(
        start=start,
        images=looked_at * size,
        losses=[float(row['loss']) for row in rows],
        errors=[float(row['error']) for row in rows],
        rates=[row['rate'] for row in rows],
        inputs=_inputs(inputs, pixels, subject.variant.pixel_std),
        before=before,
        after=instruments.look(state, placed),
        moves={layer: _moves(rows, layer) for layer in before},
        held=held,
        dropout=look_at_masks(masks) if any(masks) and subject.variant.dropout_rate else None,
    )


def _placed(subject: Subject, batch: HostBatch) -> Batch:
    arrays: Any = (batch.images, batch.labels, batch.lighting)
    return place_batch(subject.mesh, Batch(*arrays))


def _make_step(subject: Subject, model: Any) -> Any:
    """(state, batch, key, rates, factors) -> (state, numbers): training.step's, which gives norms and stops at no NaN.

    Key, rates and factors are arguments where training computes them, so that one program serves many subjects.
    """
    gradients = make_gradients(
        subject.variant,
        subject.mesh,
        num_classes=subject.classes,
        dtype=subject.dtype,
        clip_norm=subject.config.clip_norm,
        model=model,
    )

    def step(state: Any, batch: Batch, key: Array, rates: dict[str, Array], factors: dict[str, Array]) -> Any:
        (loss, error, *_), grads = gradients(state.params, batch, state.mean_image, key)
        updates, opt_state = subject.optimizer.update(grads, state.opt_state, state.params, **rates, factors=factors)
        params = optax.apply_updates(state.params, updates)
        found: dict[str, Any] = {'loss': loss, 'error': error}
        found |= {'gradient': _norms(grads), 'update': _norms(updates), 'weight': _norms(state.params)}
        return dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state), found

    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(subject.mesh))


def _norms(tree: Any) -> dict[str, Array]:
    return {layer: jnp.linalg.norm(leaves['kernel'].astype(jnp.float32).ravel()) for layer, leaves in tree.items()}


def _make_test(subject: Subject, model: Any) -> Any:
    """(params, batch, mean_image) -> logits as in testing: of the crops as they are, without lighting and dropout."""
    mesh = subject.mesh

    def device_test(params: Any, batch: Batch, mean_image: Array) -> Array:
        images = normalise(batch.images, mean_image, std=subject.variant.pixel_std)
        return model.apply({'params': params}, copy_to_towers(images, mesh))

    def test(params: Any, batch: Batch, mean_image: Array) -> Array:
        rows = batch_spec(mesh)
        specs = (parameter_specs(mesh, params), rows, REPLICATED)
        return jax.shard_map(device_test, mesh=mesh, in_specs=specs, out_specs=rows)(params, batch, mean_image)

    return jax.jit(test, compiler_options=compiler_options(mesh))


def _inputs(words: list[Any], pixels: list[np.ndarray], pixel_std: tuple[float, ...]) -> InputLook:
    std = np.asarray(pixel_std)
    mean, square = (np.mean([word[i] for word in words], axis=0, dtype=np.float64) for i in (0, 1))
    return InputLook(
        mean=mean * std,
        subtracted=np.mean(pixels, axis=0) - mean * std,
        spread=float(np.sqrt((np.maximum(0, square - mean**2) * std**2).mean())),
        lowest=float(min(word[2] for word in words)),
        highest=float(max(word[3] for word in words)),
    )


def _moves(rows: list[dict[str, Any]], layer: str) -> LayerMoves:
    gradients, updates, weights = (
        np.array([row[kind][layer] for row in rows], np.float64) for kind in ('gradient', 'update', 'weight')
    )
    with np.errstate(all='ignore'):
        return LayerMoves(*(float(np.median(x)) for x in (gradients, weights, updates / weights)))
