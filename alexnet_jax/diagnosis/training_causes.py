"""What can be wrong with how the network starts and moves: numbers, rate, initial weights. Pure rules.

The thresholds stand between what healthy and what broken runs gave; docs/doctor.md has the figures. "Healthy" below are
the embedded dataset and 3,068 photos of clothes with `released`, which both learned (docs/results.md).
"""

from __future__ import annotations

import math

import numpy as np

from alexnet_jax.diagnosis.case import Case, Finding, Rule
from alexnet_jax.training.watch import NEAR, WINDOW


def bad_numbers(case: Case) -> Finding | None:
    """The very first loss is no number: so the weights or the batch hold one, whatever the learning rate is."""
    if math.isfinite(case.network.losses[0]):
        return None
    layers = [name for name, look in case.network.before.items() if not math.isfinite(look.mean)]
    where = f'{layers[0]} gives them first' if layers else 'in training only'
    return Finding(
        'bad numbers',
        f'the loss is {case.network.losses[0]} before anything is changed: {where}',
        'go back to an older checkpoint: python -m alexnet_jax.checkpoint list; fresh weights are always finite',
    )


def rate_too_large(case: Case) -> Finding | None:
    """The loss ends as no number or rises above 30 ln(classes), updates reach 3 % of weights, or half a layer dies.

    Healthy: losses of up to 5.7 ln(classes) (clothes, step 6) and 0.1 to 0.5 % of the weights a step; a hundred times
    the rate gives no number at step 6. 0.1 % is a common rule of thumb (Karpathy, CS231n, "Ratio of weights:updates").
    Of ReLUs alive before the steps, healthy layers lose 5 % at most; at ten times the rate conv5 loses 66 %.
    """
    losses, ratio = case.network.losses, case.ratio
    before, after = case.dead(after=False), case.dead(after=True)
    died = [layer for layer in after if after[layer] >= 0.5 and before[layer] < 0.3]
    seen = ''
    if not math.isfinite(losses[-1]):
        seen = f'the loss goes from {losses[0]:.2f} to {losses[-1]} in {len(losses)} steps'
    elif max(losses) > 30 * max(case.chance, 0.1):
        seen = f'the loss rises from {losses[0]:.2f} to {max(losses):.3g} within {len(losses)} steps'
    elif ratio > 0.03:
        seen = f'a step changes the weights by {ratio:.1%} of their size where about 0.1 % is usual'
    elif died:
        seen = f'in {len(losses)} steps {after[died[0]]:.0%} of the ReLUs of {died[0]} died'
    if not seen:
        return None
    rate = case.network.rates[0]
    return Finding(
        'learning rate too large',
        f'{seen}, at a rate of {rate:.2g}',
        f'use a smaller --config.learning_rate{case.compared()}',
    )


def decay_too_large(case: Case) -> Finding | None:
    """More than ten times the recipe's weight decay, and it shrinks weights by over 0.5 % a step, to half in 140 steps.

    A step takes rate * decay of a weight, and momentum m as often again until it is 1 / (1 - m) times that. Healthy:
    0.0015 % (the embedded dataset) and 0.005 % (the paper).
    """
    config, usual = case.subject.config, case.usual.weight_decay
    shrinks = case.network.rates[0] * config.weight_decay / (1 - config.momentum)
    if shrinks <= 0.005 or config.weight_decay <= 10 * usual:
        return None
    return Finding(
        'weight decay too large',
        f'it shrinks the weights by {shrinks:.2%} a step, and so halves them in {math.log(2) / shrinks:.0f} steps',
        f'use --config.weight_decay={usual:g} of the recipe, where it is {config.weight_decay:g}',
    )


def start_loss(case: Case) -> Finding | None:
    """Before the first step the loss is more than 1.5 nats above ln(classes): it is confident of nothing it learned.

    Healthy: 0.0 to 0.3 above, and clothes, skewed, 0.1 below: fc8's weights of std 0.01 on units of about 1 spread the
    logits by 0.5, which costs 0.12 on average.
    """
    first = case.network.losses[0]
    if case.network.start or first < case.chance + 1.5:
        return None
    return Finding(
        'start too confident',
        f'the first loss is {first:.2f}, far above ln({case.subject.classes}) = {case.chance:.2f}',
        "make the initial weights of the last layers smaller (model/variants.py, init_std), or the images' range",
    )


def slow_start(case: Case) -> Finding | None:
    """What the last hidden layer gives is the same for all images, but for 3 % of it or less.

    So each gradient is, too, and the loss stays at ln(classes) while only the biases learn. With biases of 1 and std
    0.01 and the norm behind ReLU 0.8 % differs (`paper`, at any width), 1.2 % in `caffenet`; 7 % in `caffe_alexnet`,
    whose readme says "initializing non-zero biases to 0.1 instead of 1 was found necessary for training, as the
    initialization to 1 gave flat loss" (BVLC/caffe, models/bvlc_alexnet: flat is 6.9 = ln(1000)), 11 % in `released`.
    """
    hidden = list(case.network.before)[:-1]
    differs = case.network.before[hidden[-1]].differs
    if differs >= 0.03 or case.has_learned:
        return None
    layers = [layer for layer in case.subject.variant.layers if layer.init_bias]
    stds = [layer.init_std * math.sqrt(case.subject.config.width) for layer in layers if layer.init_std is not None]
    presets = f'biases of {layers[0].init_bias:g} drown weights of std {min(stds):.2g}' if stds else 'the signal fades'
    return Finding(
        'slow start',
        f'{hidden[-1]} gives the same for every image but for {differs:.1%} of it: {presets}, layer after layer',
        'use --config.variant=released (deep layers of std 0.03, norm before ReLU), or give it epochs to get out',
    )


def dead_units(case: Case) -> Finding | None:
    """80 % of a layer's ReLUs or more give nothing for any of 128 images.

    Healthy: 24 % at most at the start (fc6), 47 % in `one_weird_trick` (fc7, a sixteenth wide).
    """
    dead = case.dead(after=False)
    worst = max(dead, key=lambda layer: dead[layer], default='')
    if not worst or dead[worst] < 0.8 or case.network.images < 64 or case.has_learned:
        return None
    return Finding(
        'dead ReLUs',
        f'{dead[worst]:.0%} of the units of {worst} gave nothing for any of {case.network.images} images',
        'start again with a smaller --config.learning_rate: no gradient reaches them any more',
    )


def rate_too_small(case: Case) -> Finding | None:
    """A step changes weights by less than 0.005 %, nothing was learned, and the rate is under a tenth of the recipe's.

    Healthy: 0.05 to 0.5 % (a median over layers), 0.03 % in `caffe_alexnet`, 0.005 % in `one_weird_trick` at a rate of
    0.003: so the update alone does not tell. A hundredth of the rate: 0.0016 %. A drop makes rates small on purpose.
    """
    untouched = case.network.rates[0] >= 0.99 * case.rate
    unlearned = np.mean(case.network.losses) > 0.9 * case.chance
    low = case.rate < 0.1 * case.usual.learning_rate
    if not (case.ratio < 5e-5 and low and untouched and unlearned):
        return None
    return Finding(
        'learning rate too small',
        f'a step changes the weights by {case.ratio:.2g} of their size where about 0.001 is usual, at a rate of '
        f'{case.network.rates[0]:.2g}',
        f'use a larger --config.learning_rate{case.compared()}',
    )


def stuck(case: Case) -> Finding | None:
    """The log's loss has stayed at ln(classes) for as many steps as training's own warning waits for."""
    lines = [line for line in case.subject.history if line.get('split') == 'train']
    late = [line['loss'] for line in lines if line['step'] > case.network.start - WINDOW]
    if case.network.start < WINDOW or not late or np.mean(late) < case.chance * (1 - NEAR):
        return None
    return Finding(
        'stuck',
        f'after {case.network.start} steps the loss is {np.mean(late):.3f}, about ln({case.subject.classes}) = '
        f'{case.chance:.3f}, and nothing else was found',
        'try --config.learning_rate three times larger and three times smaller, for an epoch each',
    )


TRAINING: tuple[Rule, ...] = (
    bad_numbers,
    start_loss,
    decay_too_large,
    rate_too_large,
    dead_units,
    slow_start,
    rate_too_small,
    stuck,
)
