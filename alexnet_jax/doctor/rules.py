"""Rules that find causes in measurements, and notes that are no cause by themselves.

The thresholds stand between the figures of healthy and of broken runs; docs/doctor.md has them. "Healthy" below are the
embedded dataset and 3,068 photos of clothes with `released`, which both learned (docs/results.md). Each `check_`
function yields findings in order of importance, of which the first counts. Conditions with `not` hold for NaN too.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from alexnet_jax.doctor.data_stats import MIN_CLASS_IMAGES
from alexnet_jax.doctor.measurements import Measurements
from alexnet_jax.logs.monitors import NEAR, WINDOW
from alexnet_jax.model.spec import Sigmoid

MIN_PROBE_IMAGES = 200  # with fewer the probe may learn nothing although labels belong to the images


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that keeps a network from learning."""

    cause: str  # its name, a few words
    seen: str  # what was measured, a clause
    remedy: str  # what to do, a clause that begins with a verb


def find_causes(measurements: Measurements) -> list[Finding]:
    """Returns what is wrong, the first to be mended first; [] where nothing was found.

    How training goes is judged only where the pixels are right: with wrong ones it goes wrong because of them.
    """
    groups = [check_pixels(measurements), check_labels(measurements), check_dropout(measurements)]
    causes = [next(group, None) for group in groups]
    if causes[0] is None:
        training = (check_start, check_step_size, check_units, check_progress)
        causes.append(next(itertools.chain.from_iterable(check(measurements) for check in training), None))
    return [cause for cause in causes if cause]


def list_notes(measurements: Measurements) -> list[str]:
    """Lists what a user should know although it is no cause by itself."""
    snapshot, data = measurements.snapshot, measurements.data
    notes, classes = list(snapshot.notes), snapshot.run.num_classes
    if data.probe_images < MIN_PROBE_IMAGES and (data.probe is None or not data.probe.sigmas >= 3):
        found = f'{data.probe_images} of {data.images:,} images are of classes of {MIN_CLASS_IMAGES} or more'
        notes.append(f'cannot tell whether labels belong to their images: {found}, and {MIN_PROBE_IMAGES} are needed')
    if data.classes_seen < 0.5 * data.classes_possible and data.images >= 4 * classes:
        notes.append(f'only {data.classes_seen} of {classes} classes were seen in {data.images:,} images')
    if (size := snapshot.run.config.batch_size) < 8:
        notes.append(f'batches of {size}: their gradients are mostly noise; take 32 or more, or a smaller rate')
    last = {line['split']: line['top1_error'] for line in snapshot.history if 'top1_error' in line}
    # Of random crops with units dropped, unless the run tests training images as it does validation's.
    split, where = ('training_images', 'on training images') if 'training_images' in last else ('train', 'in training')
    if 'validation' in last and split in last and (gap := last['validation'] - last[split]) > 0.25:
        errors = f'top-1 error {last[split]:.0%} {where}, {last["validation"]:.0%} in validation'
        notes.append(f'it learns by heart: {errors}, a gap of {100 * gap:.0f} points')
    return notes


def check_pixels(measurements: Measurements) -> Iterator[Finding]:
    """Checks the pixels, and what the network reads of them."""
    data, residual, (low, high) = measurements.data, measurements.residual_mean, measurements.data.pixel_range
    # Nothing is in the images. Healthy: 46 and 65. Pixels of 0..1 are judged below.
    if data.pixel_spread < 1 and data.pixel_range != (0, 1):
        seen = f'the pixels are all about {data.pixel_mean:.0f} (spread {data.pixel_spread:.2f})'
        yield Finding('empty images', seen, 'look at the dataset: alexnet prepare --show=NAME')
    # Pixels, or what the network reads, are in 0..1, with a spread of 0.2 to 0.5, or in -1..1. Healthy: 46 and 65, and
    # after lighting's divisor of 1.1 42 and 59. The initial weights of all variants expect 0..255 (CHM convdata_jpeg.py
    # and Caffe subtract the mean and divide by nothing), or what Variant.pixel_std makes of it.
    spread = min(data.pixel_spread, measurements.network.inputs.spread)
    if spread < 10:
        where = f'the pixels go from {low} to {high}' if data.pixel_spread < 10 else 'the pixels are as they should be'
        seen = f'{where}, and what the network reads has a spread of {spread:.2f} where about 50 is expected'
        remedy = 'prepare the dataset again from images of 0..255: they were scaled to 0..1 or are nearly black'
        yield Finding('input range', seen, remedy)
    # A channel's mean is left in what the network reads. Healthy: at most 5. Not subtracted, it is 103 to 120 (photos,
    # and the embedded dataset), and 33 with MNIST, the darkest that is commonly trained on.
    if not residual <= 20:
        seen = f'of pixels with a mean of {data.pixel_mean:.0f}, {residual:.0f} are left in what the network reads'
        remedy = "prepare the dataset again, with --overwrite (it is the training split's)"
        yield Finding('mean not subtracted', seen, f'make the mean image fit the images: {remedy}')


def check_labels(measurements: Measurements) -> Iterator[Finding]:
    """Checks how labels spread, and whether they belong to their images."""
    data, probe = measurements.data, measurements.data.probe
    # Nearly all images have one class: answering it is nearly always right. Healthy: 11, 26 %.
    if data.largest >= 0.9:
        seen = f'{data.largest:.1%} of {data.images:,} labels are the same'
        yield Finding('one class', seen, 'look at how the labels were made: there should be more of the other classes')
    # The probe, in standard deviations. Healthy: 5.4 and 5.1 of 128 images, 8.8 and 17 of 350, 35 and 68 of 2,000.
    # Shuffled: -1.2 to 0.9. Not tried on more than ten classes. Validation that says otherwise is believed.
    enough = data.probe_images >= MIN_PROBE_IMAGES
    if probe is not None and not probe.sigmas >= 3 and enough and not measurements.has_learned:
        permuted = f'{probe.permuted_accuracy:.1%} with the labels permuted ({probe.sigmas:+.1f} standard deviations)'
        accuracies = f'a linear probe is right on {probe.accuracy:.1%}, and on {permuted}'
        seen = f'labels have nothing to do with their images: {accuracies}'
        remedy = 'look at how images and labels are brought together: alexnet prepare --show=NAME'
        yield Finding('labels shuffled', seen, remedy)
    # Labels within a batch spread less than chance would give. Healthy: 96 to 101 %.
    if data.order < 0.7:
        entropy = f'the entropy of their labels is {data.order:.0%} of what random order gives'
        remedy = 'shuffle: training expects the images in random order'
        yield Finding('order of the images', f'batches hold few classes at a time: {entropy}', remedy)


def check_dropout(measurements: Measurements) -> Iterator[Finding]:
    """Checks that units are dropped independently, and as many as they should be; of 10,000 units and more."""
    dropout, keep = measurements.network.dropout, 1 - measurements.snapshot.run.variant.dropout_rate
    if dropout is None:
        return
    for what, correlation in dropout.correlations.items():
        # By chance 0.01 at most; 1 where the same key is used twice.
        if correlation is not None and abs(correlation) >= 0.1:
            cause = 'same dropout in both towers' if what == 'towers' else f'same dropout in all {what}'
            found = f'a correlation of {correlation:.2f} between {what} where 0 is expected'
            remedy = f'give each of the {what} a key of its own: model.ops.dropout folds in layer, image and tower'
            yield Finding(cause, f'units are dropped together, with {found}', remedy)
    if dropout.kept is not None and abs(dropout.kept - keep) >= 0.05:  # by chance 0.005
        seen = f'{dropout.kept:.0%} of the hidden units are kept where {keep:.0%} are expected'
        remedy = 'look at model.ops.dropout: a rate is the probability of dropping, not of keeping'
        yield Finding('dropout rate', seen, remedy)


def check_start(measurements: Measurements) -> Iterator[Finding]:
    """Checks the first loss, before any update."""
    network, first, chance = measurements.network, measurements.network.losses[0], measurements.chance_loss
    # The weights or the batch are not finite, whatever the learning rate is.
    if not math.isfinite(first):
        layers = [name for name, stats in network.before.items() if not math.isfinite(stats.mean)]
        where = f'{layers[0]} gives them first' if layers else 'in training only'
        remedy = 'go back to an older checkpoint (alexnet checkpoint list --workdir=RUN); fresh weights are finite'
        yield Finding('bad numbers', f'the loss is {first} before anything is changed: {where}', remedy)
    # It is confident of nothing it learned. Healthy: 0.0 to 0.3 above, and clothes, skewed, 0.1 below: fc8's weights of
    # std 0.01 on units of about 1 spread the logits by 0.5, which costs 0.12 on average.
    if not network.start and not first < chance + 1.5:
        seen = f'the first loss is {first:.2f}, far above ln({measurements.snapshot.run.num_classes}) = {chance:.2f}'
        remedy = "make the initial weights of the last layers smaller (model/spec.py, init_std), or the images' range"
        yield Finding('start too confident', seen, remedy)


def check_step_size(measurements: Measurements) -> Iterator[Finding]:
    """Checks that weight decay and learning rate are not too large."""
    config, network = measurements.snapshot.run.config, measurements.network
    losses, rate = network.losses, network.rates[0]
    # More than ten times the recipe's decay, and weights shrink to half in 140 steps. A step takes rate * decay of a
    # weight, and momentum m as often again until it is 1 / (1 - m) times that. Healthy: 0.0015 % (the embedded dataset)
    # and 0.005 % (the paper).
    shrinks, usual = rate * config.weight_decay / (1 - config.momentum), measurements.recipe.weight_decay
    if shrinks > 0.005 and config.weight_decay > 10 * usual and not measurements.has_local_rates:
        halves = f'halves them in {math.log(2) / shrinks:.0f} steps'
        remedy = f'use --config.weight_decay={usual:g} of the recipe, where it is {config.weight_decay:g}'
        yield Finding(
            'weight decay too large', f'it shrinks the weights by {shrinks:.2%} a step, and so {halves}', remedy
        )
    # Healthy: losses of up to 5.7 ln(classes) (clothes, step 6) and 0.1 to 0.5 % of the weights a step; a hundred times
    # the rate gives NaN at step 6. 0.1 % is a common rule of thumb (Karpathy, CS231n, "Ratio of weights:updates").
    # Of ReLUs alive before the steps, healthy layers lose 5 % at most; at ten times the rate conv5 loses 66 %.
    ratio, seen = measurements.update_ratio, ''
    before, after = measurements.get_dead_shares(after=False), measurements.get_dead_shares(after=True)
    died = [layer for layer in after if after[layer] >= 0.5 and before[layer] < 0.3]
    if not math.isfinite(losses[-1]):
        seen = f'the loss goes from {losses[0]:.2f} to {losses[-1]} in {len(losses)} steps'
    elif max(losses) > 30 * max(measurements.chance_loss, 0.1):
        seen = f'the loss rises from {losses[0]:.2f} to {max(losses):.3g} within {len(losses)} steps'
    elif ratio > 0.03 and not measurements.has_local_rates:  # which aim at such steps
        seen = f'a step changes the weights by {ratio:.1%} of their size where about 0.1 % is usual'
    elif died:
        seen = f'in {len(losses)} steps {after[died[0]]:.0%} of the ReLUs of {died[0]} died'
    if seen:
        remedy = f'use a smaller --config.learning_rate{measurements.compare_learning_rate()}'
        yield Finding('learning rate too large', f'{seen}, at a rate of {rate:.2g}', remedy)


def check_units(measurements: Measurements) -> Iterator[Finding]:
    """Checks, of a network that has not learned, that its hidden units are alive and depend on the image."""
    if measurements.has_learned:
        return
    run, network = measurements.snapshot.run, measurements.network
    # Units give nothing for any of 128 images. Healthy: 24 % of a layer at most at the start (fc6), 47 % in
    # `one_weird_trick` (fc7, a sixteenth wide).
    dead = measurements.get_dead_shares(after=False)
    worst = max(dead, key=lambda layer: dead[layer], default='')
    if worst and dead[worst] >= 0.8 and network.images >= 64:
        seen = f'{dead[worst]:.0%} of the units of {worst} gave nothing for any of {network.images} images'
        remedy = 'start again with a smaller --config.learning_rate: no gradient reaches them any more'
        yield Finding('dead ReLUs', seen, remedy)
    # Tanh and sigmoid pass hardly any gradient at their ends. From its initial weights tanh has 78 % of conv1 there,
    # which reads pixels of 0..255 (`paper`; 68 % in `released`), and 0.2 % of any other layer; sigmoid nothing.
    saturated = measurements.get_saturated_shares(after=False)
    worst = max(saturated, key=lambda layer: saturated[layer], default='')
    if worst and saturated[worst] >= 0.9:
        seen = f'{saturated[worst]:.0%} of what the units of {worst} gave had under 1 % of their largest slope'
        remedy = 'start again with a smaller --config.learning_rate, or with --config.activation=relu'
        yield Finding('saturated units', seen, remedy)
    # The last hidden layer is nearly the same for all images, so each gradient is, too, and the loss stays at
    # ln(classes) while only the biases learn. With biases of 1 and std 0.01 and the norm behind ReLU 0.8 % differs
    # (`paper`, at any width), 1.2 % in `caffenet`; 7 % in `caffe_alexnet`, whose readme says "initializing non-zero
    # biases to 0.1 instead of 1 (found necessary for training, as initialization to 1 gave flat loss)"
    # (BVLC/caffe models/bvlc_alexnet/readme.md: flat is 6.9 = ln(1000)), 11 % in `released`.
    last_hidden = list(network.before)[-2]
    variation = network.before[last_hidden].variation
    if not variation >= 0.03:
        layers, width = [layer for layer in run.variant.layers if layer.init_bias], run.config.width
        stds = [layer.init_std * math.sqrt(width) for layer in layers if layer.init_std is not None]
        reason = (
            f'biases of {layers[0].init_bias:g} drown weights of std {min(stds):.2g}' if stds else 'the signal fades'
        )
        same = f'{last_hidden} gives the same for every image but for {variation:.1%} of it'
        remedy = (
            'use --config.variant=released (deep layers of std 0.03, norm before ReLU), or give it epochs to get out'
        )
        if isinstance(run.variant.activation, Sigmoid):  # whose slope is a quarter at most
            remedy = 'use --config.activation=relu, or tanh: each layer of sigmoids shrinks what differs'
        yield Finding('slow start', f'{same}: {reason}, layer after layer', remedy)


def check_progress(measurements: Measurements) -> Iterator[Finding]:
    """Checks that the weights move and that the logged loss has left ln(classes)."""
    network, ratio, chance = measurements.network, measurements.update_ratio, measurements.chance_loss
    # Healthy: 0.05 to 0.5 % (a median over layers), 0.03 % in `caffe_alexnet`, 0.005 % in `one_weird_trick` at a rate
    # of 0.003: so the update alone does not tell, and the rate has to be under a tenth of the recipe's. A hundredth of
    # the rate: 0.0016 %. A drop makes rates small on purpose.
    rate, dropped = network.rates[0], network.rates[0] < 0.99 * measurements.learning_rate
    low = measurements.learning_rate < 0.1 * measurements.recipe.learning_rate
    low &= not measurements.has_local_rates
    if ratio < 5e-5 and low and not dropped and np.mean(network.losses) > 0.9 * chance:
        seen = f'a step changes the weights by {ratio:.2g} of their size where about 0.001 is usual'
        remedy = f'use a larger --config.learning_rate{measurements.compare_learning_rate()}'
        yield Finding('learning rate too small', f'{seen}, at a rate of {rate:.2g}', remedy)
    # The log's loss has stayed at ln(classes) for as many steps as training's own warning waits for.
    lines = [line for line in measurements.snapshot.history if line.get('split') == 'train']
    late = [line['loss'] for line in lines if line['step'] > network.start - WINDOW]
    if network.start >= WINDOW and late and not np.mean(late) < chance * (1 - NEAR):
        near = f'about ln({measurements.snapshot.run.num_classes}) = {chance:.3f}, and nothing else was found'
        remedy = 'try --config.learning_rate three times larger and three times smaller, for an epoch each'
        yield Finding('stuck', f'after {network.start} steps the loss is {np.mean(late):.3f}, {near}', remedy)
