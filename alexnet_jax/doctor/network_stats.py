"""Statistics of some real training steps: losses, layers' outputs, gradients, updates, dropout masks."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.data.pipeline import HostBatch
from alexnet_jax.doctor.recorder import LayerStats, Recorder
from alexnet_jax.doctor.snapshot import Snapshot
from alexnet_jax.run.batches import make_batch
from alexnet_jax.sharding.backend import compiler_options
from alexnet_jax.sharding.collectives import copy_to_towers
from alexnet_jax.sharding.mesh import REPLICATED, batch_spec, parameter_specs, place_batch, replicate
from alexnet_jax.training.build import Run
from alexnet_jax.training.schedule import get_lr_multipliers
from alexnet_jax.training.step import Batch, apply_gradients, make_gradients, make_input, make_model, rates_at

# Images that are passed through the network as in testing, before the steps and after them. Of fewer a unit that fires
# for one image in twenty would often look dead.
TEST_IMAGES, MAX_TEST_BATCHES = 128, 32
_MIN_PAIRS = 2500  # of units: with so many, chance gives a correlation of 0.1 five standard deviations away


@dataclasses.dataclass(frozen=True)
class InputStats:
    """Statistics of what conv1 reads in training, normalised pixels, over all steps.

    `mean`, `subtracted` and `spread` are in 0..255 units: times the variant's `pixel_std`.
    """

    mean: np.ndarray  # (3,), of the channels
    subtracted: np.ndarray  # (3,), how far these are below the means of the same images' pixels, dark images or not
    spread: float  # standard deviation, each channel about its own mean
    lowest: float  # as conv1 reads it
    highest: float


@dataclasses.dataclass(frozen=True)
class UpdateStats:
    """Statistics of a layer's kernel in training, each the median over the steps."""

    gradient: float  # Euclidean norm of its gradient
    weight: float  # Euclidean norm of the kernel itself
    ratio: float  # norm of the update, as it was applied, divided by that of the kernel before it


@dataclasses.dataclass(frozen=True)
class DropoutStats:
    """Statistics of the hidden units that training dropped.

    `correlations` has 'towers', 'images', 'layers' and 'steps': of a unit kept or dropped in tower 0 with the unit of
    the same place in tower 1; in one image of a batch with the next; in one hidden layer with the next; in one step
    with the next. 0 by chance, 1 where both are the same. None where there is nothing to compare.
    """

    kept: float | None  # fraction of the units whose mask is known
    correlations: dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class NetworkStats:
    """Statistics of some training steps; those of layers by name."""

    start: int  # updates made before the first
    images: int  # how many `before` and `after` were measured on
    losses: list[float]  # of each step, before its update; one that is not finite is the last
    errors: list[float]
    rates: list[float]
    inputs: InputStats
    before: dict[str, LayerStats]  # as in testing (nothing dropped), before the first step
    after: dict[str, LayerStats]  # after the last
    updates: dict[str, UpdateStats]
    frozen_layers: tuple[str, ...]  # whose learning rate is 0 at the last step, and so the ratio of their updates
    dropout: DropoutStats | None  # None where the variant drops nothing, or inputs, whose masks cannot be recorded


class Instruments:
    """Compiled programs with a recorder in them, for all snapshots of one network, mesh and update rule."""

    def __init__(self, run: Run) -> None:
        """Makes the programs; they are compiled when the first snapshot is measured."""
        self.recorder = Recorder(run.variant)
        model = self.recorder.attach(make_model(run.mesh, run.variant, num_classes=run.num_classes, dtype=run.dtype))
        self.test, self.step = _make_test(run, model), _make_step(run, model)

    def measure_layers(self, state: Any, batches: list[Batch]) -> dict[str, LayerStats]:
        """Measures the layers' outputs for `batches`, as in testing."""
        for batch in batches:
            jax.block_until_ready(self.test(state.params, batch, state.mean_image))
        return self.recorder.compute_stats(self.recorder.flush())


def measure_network(
    snapshot: Snapshot, *, steps: int, info: Callable[[str], None], instruments: Instruments | None = None
) -> NetworkStats:
    """Makes `steps` training steps from `snapshot` on, fewer where a loss is not finite; uses up its state."""
    run = snapshot.run
    instruments = instruments or Instruments(run)
    start = int(snapshot.state.step)
    start = start if start >= 0 else -start - 1  # training.state.frozen
    state = dataclasses.replace(snapshot.state, step=replicate(run.mesh, np.int32(start)))
    test_batches = min(MAX_TEST_BATCHES, math.ceil(TEST_IMAGES / run.config.batch_size))
    batches = iter(snapshot.batches(start))
    first = list(itertools.islice(batches, test_batches))  # the others are read one by one: all may be many GB
    placed = [_place(run, batch) for batch in first]
    info('compiling the network with its recorder')
    before = instruments.measure_layers(state, placed)
    rows: list[dict[str, Any]] = []
    masks: list[dict[str, np.ndarray]] = []
    frozen_layers: tuple[str, ...] = ()
    for number, batch in enumerate(itertools.islice(itertools.chain(first, batches), steps), start=1):
        key = jax.random.fold_in(jax.random.key(run.config.seed), state.step)
        timing: dict[str, Any] = {'schedule': run.schedule, 'variant': run.variant, 'warmup_steps': run.warmup_steps}
        rates = rates_at(state.step, state.plateau, **timing)
        factors = get_lr_multipliers(run.lr_multipliers, state.step)
        stopped = [layer for layer, factor in factors.items() if factor == 0]
        frozen_layers = tuple(dict.fromkeys([*run.config.frozen, *stopped]))
        state, row = instruments.step(state, _place(run, batch), key, rates, factors)
        recorded = instruments.recorder.flush()
        masks.append({name.split()[1]: values[0][0] for name, values in recorded.items() if name.startswith('masks ')})
        pixels = {'pixels': batch.images.mean((0, 1, 2), dtype=np.float64), 'inputs': recorded['input']}
        rows.append(jax.device_get(row) | pixels | {'rate': float(rates['learning_rate'])})
        info(f'training step {number} of {steps}: loss {rows[-1]["loss"]:.3f}')
        if not math.isfinite(rows[-1]['loss']):
            break
    return NetworkStats(
        start=start,
        images=test_batches * run.config.batch_size,
        losses=[float(row['loss']) for row in rows],
        errors=[float(row['error']) for row in rows],
        rates=[row['rate'] for row in rows],
        inputs=_measure_inputs(rows, pixel_std=np.asarray(run.variant.pixel_std)),
        before=before,
        after=instruments.measure_layers(state, placed),
        updates={layer: _measure_updates(rows, layer) for layer in before},
        frozen_layers=frozen_layers,
        dropout=measure_masks(masks) if any(masks) and run.variant.dropout_rate else None,
    )


def _place(run: Run, batch: HostBatch) -> Batch:
    return place_batch(run.mesh, make_batch(batch))


def _make_step(run: Run, model: Any) -> Any:
    """Makes training.step's (state, batch, key, rates, factors) -> (state, numbers), with norms, past NaN too.

    Key, rates and factors are arguments where training computes them, so that one program serves many snapshots.
    """
    options = {'dtype': run.dtype, 'clip_norm': run.config.clip_norm, 'model': model}
    options |= {'num_classes': run.num_classes, 'frozen_layers': run.config.frozen}
    gradients = make_gradients(run.variant, run.mesh, **options)

    def norms(tree: Any) -> dict[str, Array]:
        found = {layer: jnp.linalg.norm(leaves['kernel'].astype(jnp.float32).ravel()) for layer, leaves in tree.items()}
        return dict.fromkeys(run.config.frozen, jnp.float32(0)) | found

    def step(state: Any, batch: Batch, key: Array, rates: dict[str, Array], factors: dict[str, Array]) -> Any:
        (loss, error, *_), grads = gradients(state.params, batch, state.mean_image, key)
        given = rates | {'lr_multipliers': factors}
        after, updates = apply_gradients(state, grads, run.optimizer, **given)
        row = {'gradient': norms(grads), 'update': norms(updates), 'weight': norms(state.params)}
        return after, row | {'loss': loss, 'error': error}

    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(run.mesh))


def _make_test(run: Run, model: Any) -> Any:
    """Makes (params, batch, mean_image) -> logits as in testing: of the crops, without lighting and dropout."""
    mesh = run.mesh

    def device_test(params: Any, batch: Batch, mean_image: Array) -> Array:
        images = make_input(run.variant, batch, mean_image, lit=False)
        return model.apply({'params': params}, copy_to_towers(images, mesh))

    def test(*arguments: Any) -> Array:
        specs = (parameter_specs(mesh, arguments[0]), batch_spec(mesh), REPLICATED)
        return jax.shard_map(device_test, mesh=mesh, in_specs=specs, out_specs=batch_spec(mesh))(*arguments)

    return jax.jit(test, compiler_options=compiler_options(mesh))


def _measure_inputs(rows: list[dict[str, Any]], *, pixel_std: np.ndarray) -> InputStats:
    means, squares, lowest, highest = zip(*(values for row in rows for values in row['inputs']), strict=True)
    mean, square = np.mean(means, axis=0, dtype=np.float64), np.mean(squares, axis=0, dtype=np.float64)
    return InputStats(
        mean=mean * pixel_std,
        subtracted=np.mean([row['pixels'] for row in rows], axis=0) - mean * pixel_std,
        spread=float(np.sqrt((np.maximum(0, square - mean**2) * pixel_std**2).mean())),
        lowest=float(min(lowest)),
        highest=float(max(highest)),
    )


def _measure_updates(rows: list[dict[str, Any]], layer: str) -> UpdateStats:
    kinds = ('gradient', 'update', 'weight')
    gradients, updates, weights = (np.array([row[kind][layer] for row in rows], np.float64) for kind in kinds)
    with np.errstate(all='ignore'):
        return UpdateStats(*(float(np.median(x)) for x in (gradients, weights, updates / weights)))


def measure_masks(masks: list[dict[str, np.ndarray]]) -> DropoutStats:
    """Compares dropout masks that a `Recorder` recorded.

    Args:
      masks: of each step, {layer behind the hidden one: int8 (b, units)}, 1 kept, -1 dropped, 0 unknown; the units of
        tower 0 first.
    """
    flat = [mask for step in masks for mask in step.values()]
    known = np.concatenate([np.zeros(0), *(mask[mask != 0] for mask in flat)])
    pairs: dict[str, Iterable[Any]] = {
        'towers': (np.split(mask, 2, axis=1) for mask in flat),
        'images': ((mask[:-1], mask[1:]) for mask in flat),
        'layers': (pair for step in masks for pair in itertools.pairwise(step.values())),
        'steps': ((earlier[layer], later[layer]) for earlier, later in itertools.pairwise(masks) for layer in earlier),
    }
    return DropoutStats(
        kept=float((known > 0).mean()) if known.size else None,
        correlations={name: correlate(masks) for name, masks in pairs.items()},
    )


def correlate(pairs: Iterable[Any]) -> float | None:
    """Computes Pearson's correlation over all places of all pairs where both masks are known (not 0).

    None where a side is constant, or fewer than _MIN_PAIRS places are known; pairs of different shapes are left out.
    """
    known = [np.stack([a, b])[:, (a != 0) & (b != 0)] for a, b in pairs if a.shape == b.shape]
    sides = np.concatenate([np.zeros((2, 0)), *known], axis=1)
    if sides.shape[1] < _MIN_PAIRS or not sides.std(axis=1).all():
        return None
    return float(np.corrcoef(sides)[0, 1])
